"""Encoders, targets, heads, and the model that composes them."""

from mmkernel.models.backbones import TIMMBackbone
from mmkernel.models.classifier import Classifier, OneClass, SeveralClasses
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.cluster import ClusterHead
from mmkernel.models.heads.cosine_prediction import CosinePredictionHead
from mmkernel.models.heads.covariance_memory import LogDetHead, QuadraticMemoryHead
from mmkernel.models.heads.head import Head, SumHead
from mmkernel.models.heads.info_nce import InfoNCEHead
from mmkernel.models.heads.information import ConcatenatedCritic, MutualInformationHead, SeparableCritic
from mmkernel.models.heads.kernel_mmd import KernelMMDHead
from mmkernel.models.heads.neighbour_entropy import EntropyHead
from mmkernel.models.heads.patch_prediction import MaskedConvContext, PredictiveCodingHead
from mmkernel.models.heads.second_moments import CrossCorrelationHead, VarianceCovarianceHead
from mmkernel.models.heads.sinkhorn_codes import SinkhornCodesHead
from mmkernel.models.heads.sliced_normality import SlicedHead
from mmkernel.models.heads.spectra import SpectralContrastiveHead, SpectrumHead
from mmkernel.models.heads.whitened_distance import WhiteningHead
from mmkernel.models.joint_embedding import JointEmbedding, build_model
from mmkernel.models.necks import IdentityNeck, MLPNeck
from mmkernel.models.norms import DBN, ShuffledDBN
from mmkernel.models.preprocessor import ViewPreprocessor
from mmkernel.models.queue import FeatureQueue
from mmkernel.models.state import move
from mmkernel.models.targets import MomentumTarget, OnlineTarget, StopGradientTarget
