"""Objectives as pure functions of tensors: nothing is drawn, remembered or changed inside.

``views`` are stacked, (V, B, q) with V >= 2: ``moment_terms(torch.stack([z1, z2]))``. ``pairs`` None compares every two views.
Half precision is computed in float32.
Kernel energies are in ``mmkernel.kernels``.
"""

from mmkernel.losses.alignment import alignment, invariance, paired_distance, squared_distance, uniformity
from mmkernel.losses.clustering import (
    cluster_cross_entropy,
    random_rows,
    sinkhorn,
    spherical_kmeans,
    swapped_prediction,
)
from mmkernel.losses.contrastive import in_batch_info_nce, nt_xent, queue_info_nce
from mmkernel.losses.covariance import correlation_terms, moment_terms
from mmkernel.losses.entropy import leave_one_out_log_density, nearest_neighbour_log_density
from mmkernel.losses.mutual_information import (
    dv_bound,
    infonce_bound,
    interpolated_bound,
    js_bound,
    nwj_bound,
    tuba_bound,
)
from mmkernel.losses.order_statistics import anderson_darling, cramer, cramer_von_mises, wasserstein, watson
from mmkernel.losses.predictive_coding import prediction_loss
from mmkernel.losses.running_covariance import log_determinants, memory_energy, second_moment
from mmkernel.losses.sliced import center_scale_shape, draw_slices, epps_pulley, sliced
from mmkernel.losses.spectrum import (
    centroid_norms,
    log_frobenius_terms,
    nuclear_norm,
    spectral_contrastive,
    wasserstein_to_uniform,
)
from mmkernel.losses.whitening import (
    draw_sub_batches,
    sub_batches,
    whiten,
    whiten_views,
    whitened_distance,
    whitening_matrix,
)
