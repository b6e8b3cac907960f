"""Encoders, targets, heads, and the model that composes them."""

from mmkernel.models.backbones import TIMMBackbone
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads import Head, KernelMMDHead
from mmkernel.models.joint_embedding import JointEmbedding, build_model
from mmkernel.models.necks import IdentityNeck, MLPNeck
from mmkernel.models.preprocessor import ViewPreprocessor
from mmkernel.models.targets import OnlineTarget

__all__ = [
    'Embeddings', 'Head', 'IdentityNeck', 'JointEmbedding', 'KernelMMDHead', 'MLPNeck', 'OnlineTarget', 'TIMMBackbone',
    'ViewPreprocessor', 'build_model',
]  # fmt: skip
