"""Invariance, variance of each dimension, covariance between dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.distributed import global_mean
from mmkernel.kernels.engine import Engine
from mmkernel.losses.alignment import REDUCTIONS, squared_distance
from mmkernel.losses.pairs import check_pairs
from mmkernel.losses.variance_covariance import moment_terms
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head
from mmkernel.registry import MODELS


@MODELS.register_module()
class VarianceCovarianceHead(Head):
    """25 mean_pairs ||p_i - t_j||^2 / q + 25 mean_views hinge(std) + 1 * 2 mean_views sum_{i != j} C_ij^2 / q.

    Bardes, Ponce and LeCun, VICReg, ICLR 2022, as in the official code: the hinge is averaged over views, the covariance
    of two views is summed, its divisor and the variance's is N - 1 of the global batch. Embeddings are not normalised.
    With only the first weight, the plain squared distance that needs a norm at the end of the neck not to collapse
    (Hua et al., ICCV 2021). A term of weight 0 is logged, and costs no backward pass.

    Args:
        invariance_weight, variance_weight, covariance_weight: of the three terms.
        target_std: gamma, where the hinge ends.
        eps: added to the variance inside the square root.
        reduction: 'element' divides ||p - t||^2 by q, as the official code does; 'sample' does not (the paper's text).
        precision, layout, transport_dtype: of the products and of rows between ranks; ``mmkernel.kernels.engine.Engine``.
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        target_std: float = 1.0,
        eps: float = 1e-4,
        reduction: str = 'element',
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"VarianceCovarianceHead.reduction is 'sample' or 'element', got {reduction!r}.")
        self.distance_weight = ('invariance_weight', invariance_weight)
        self.weights = dict(invariance=invariance_weight, variance=variance_weight, covariance=covariance_weight)
        check_numbers('VarianceCovarianceHead', target_std=target_std)
        check_numbers(
            'VarianceCovarianceHead', zero=True, eps=eps, **{f'{n}_weight': w for n, w in self.weights.items()}
        )
        self.target_std, self.eps, self.reduction = target_std, eps, reduction
        self.engine = Engine(precision, layout, transport_dtype)

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z, pairs = embeddings.online, embeddings.symmetric_pairs()
        if self.weights['invariance'] != 0:
            check_pairs(pairs)
        plain = embeddings.predicted is z and embeddings.target is z
        invariance, variance, covariance = moment_terms(
            z, pairs if plain else [], self.target_std, self.eps,
            covariance='trained' if self.weights['covariance'] else 'value',
            **self.engine.options(z, embeddings.computed_in),
        )  # fmt: skip
        if not plain and pairs:
            predicted, target = embeddings.predicted, embeddings.target
            distances = [squared_distance(predicted[i], target[j]) for i, j in pairs]
            invariance = global_mean(torch.stack(distances).mean()) / embeddings.width
        if self.reduction == 'sample':
            invariance = invariance * embeddings.width
        parts = dict(invariance=invariance, variance=variance, covariance=covariance)
        factors = {**self.weights, 'covariance': 2 * self.weights['covariance']}
        losses = {f'loss_{n}': w * (parts[n] if w else parts[n].detach()) for n, w in factors.items()}
        logged = {name: value.detach() for name, value in parts.items()}
        return {**losses, **logged, 'covariance': 2 * logged['covariance']}
