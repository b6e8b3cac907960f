"""Objectives as pure functions of tensors: nothing is drawn, remembered or changed inside."""

from mmkernel.losses.alignment import alignment, mean_over_pairs, squared_distance, uniformity
from mmkernel.losses.clustering import cluster_cross_entropy, spherical_kmeans
from mmkernel.losses.contrastive import in_batch_info_nce, nt_xent, queue_info_nce
from mmkernel.losses.covariance import correlation_terms, moment_terms
from mmkernel.losses.sinkhorn import sinkhorn, swapped_prediction
