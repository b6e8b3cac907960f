"""One file per family of objectives; each reads like the paper's pseudocode."""

from mmkernel.models.heads.cluster import ClusterHead
from mmkernel.models.heads.cosine_prediction import CosinePredictionHead
from mmkernel.models.heads.cross_correlation import CrossCorrelationHead
from mmkernel.models.heads.head import Head
from mmkernel.models.heads.info_nce import InfoNCEHead
from mmkernel.models.heads.kernel_mmd import KernelMMDHead
from mmkernel.models.heads.mutual_information import MutualInformationHead
from mmkernel.models.heads.predictive_coding import PredictiveCodingHead
from mmkernel.models.heads.sinkhorn_codes import SinkhornCodesHead
from mmkernel.models.heads.sum import SumHead
from mmkernel.models.heads.variance_covariance import VarianceCovarianceHead
from mmkernel.models.heads.whitening import WhiteningHead

__all__ = [
    'ClusterHead', 'CosinePredictionHead', 'CrossCorrelationHead', 'Head', 'InfoNCEHead', 'KernelMMDHead',
    'MutualInformationHead', 'PredictiveCodingHead', 'SinkhornCodesHead', 'SumHead', 'VarianceCovarianceHead',
    'WhiteningHead',
]  # fmt: skip
