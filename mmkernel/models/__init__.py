"""Encoders, targets, heads, and the model that composes them."""

from mmkernel.models.backbones import TIMMBackbone
from mmkernel.models.classifier import Classifier
from mmkernel.models.contexts import MaskedConvContext
from mmkernel.models.critics import ConcatenatedCritic, SeparableCritic
from mmkernel.models.decorrelation import DBN, ShuffledDBN
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.flag import move
from mmkernel.models.heads import (
    ClusterHead,
    CosinePredictionHead,
    CrossCorrelationHead,
    Head,
    InfoNCEHead,
    KernelMMDHead,
    MutualInformationHead,
    PredictiveCodingHead,
    SinkhornCodesHead,
    SumHead,
    VarianceCovarianceHead,
    WhiteningHead,
)
from mmkernel.models.joint_embedding import JointEmbedding, build_model
from mmkernel.models.necks import IdentityNeck, MLPNeck
from mmkernel.models.objectives import OneClass, SeveralClasses
from mmkernel.models.preprocessor import ViewPreprocessor
from mmkernel.models.queue import FeatureQueue
from mmkernel.models.targets import MomentumTarget, OnlineTarget, StopGradientTarget

__all__ = [
    'DBN', 'Classifier', 'ClusterHead', 'ConcatenatedCritic', 'CosinePredictionHead', 'CrossCorrelationHead', 'Embeddings',
    'FeatureQueue', 'Head', 'IdentityNeck', 'InfoNCEHead', 'JointEmbedding', 'KernelMMDHead', 'MLPNeck',
    'MaskedConvContext', 'MomentumTarget', 'MutualInformationHead', 'OneClass', 'OnlineTarget', 'PredictiveCodingHead',
    'SeparableCritic', 'SeveralClasses', 'ShuffledDBN', 'SinkhornCodesHead', 'StopGradientTarget', 'SumHead', 'TIMMBackbone',
    'VarianceCovarianceHead', 'ViewPreprocessor', 'WhiteningHead', 'build_model', 'move',
]  # fmt: skip
