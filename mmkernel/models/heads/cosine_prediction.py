"""Cosine similarity of predictions and targets."""

from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.losses.alignment import paired_distance
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head
from mmkernel.registry import MODELS


@MODELS.register_module()
class CosinePredictionHead(Head):
    """weight * mean_pairs mean_n ||p^_n - t^_n||^2 = weight * (2 - 2 mean cos(p, t)).

    Grill et al., NeurIPS 2020: the sum of two directions, weight 2. Chen & He, CVPR 2021: minus the mean cosine, which is
    weight 0.5 less 1. Whether gradient flows into t is the target's business.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        check_numbers('CosinePredictionHead', zero=True, weight=weight)
        self.weight = weight

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        distance = paired_distance(embeddings.predicted, embeddings.target, embeddings.pairs)
        return {
            'loss_prediction': self.weight * distance,
            'distance': distance.detach(),
            'cosine': 1 - distance.detach() / 2,
        }
