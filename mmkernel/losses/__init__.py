"""Objectives as pure functions of tensors: nothing is drawn, remembered or changed inside."""

from mmkernel.losses.alignment import alignment, squared_distance, uniformity
from mmkernel.losses.clustering import cluster_cross_entropy, spherical_kmeans
from mmkernel.losses.contrastive import in_batch_info_nce, nt_xent, queue_info_nce
from mmkernel.losses.pairs import mean_over_pairs
from mmkernel.losses.sinkhorn import sinkhorn, swapped_prediction

__all__ = [
    'alignment', 'cluster_cross_entropy', 'in_batch_info_nce', 'mean_over_pairs', 'nt_xent', 'queue_info_nce',
    'sinkhorn', 'spherical_kmeans', 'squared_distance', 'swapped_prediction', 'uniformity',
]  # fmt: skip
