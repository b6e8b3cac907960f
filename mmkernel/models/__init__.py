"""Encoders, targets, heads, and the model that composes them."""

from mmkernel.models.backbones import TIMMBackbone
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads import ClusterHead, CosinePredictionHead, Head, InfoNCEHead, KernelMMDHead, SinkhornCodesHead
from mmkernel.models.joint_embedding import JointEmbedding, build_model
from mmkernel.models.necks import IdentityNeck, MLPNeck
from mmkernel.models.preprocessor import ViewPreprocessor
from mmkernel.models.queue import FeatureQueue
from mmkernel.models.targets import MomentumTarget, OnlineTarget, StopGradientTarget

__all__ = [
    'ClusterHead', 'CosinePredictionHead', 'Embeddings', 'FeatureQueue', 'Head', 'IdentityNeck', 'InfoNCEHead', 'JointEmbedding',
    'KernelMMDHead', 'MLPNeck', 'MomentumTarget', 'OnlineTarget', 'SinkhornCodesHead', 'StopGradientTarget',
    'TIMMBackbone', 'ViewPreprocessor', 'build_model',
]  # fmt: skip
