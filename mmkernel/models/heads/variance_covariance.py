"""Invariance, variance of each dimension, covariance between dimensions."""

from __future__ import annotations

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows_with_gradient, global_mean
from mmkernel.losses.alignment import REDUCTIONS, squared_distance
from mmkernel.losses.redundancy import covariance_penalty, variance_hinge
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
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        target_std: float = 1.0,
        eps: float = 1e-4,
        reduction: str = 'element',
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"VarianceCovarianceHead.reduction is 'sample' or 'element', got {reduction!r}.")
        if target_std <= 0 or eps < 0:
            raise ValueError(
                f'VarianceCovarianceHead needs target_std > 0 and eps >= 0, got target_std = {target_std}, eps = {eps}.'
            )
        self.weights = dict(invariance=invariance_weight, variance=variance_weight, covariance=covariance_weight)
        self.target_std, self.eps, self.reduction = target_std, eps, reduction

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        rows = [gather_rows_with_gradient(z) for z in embeddings.online]  # V x (N, q)
        terms = dict(
            invariance=lambda: self.invariance(embeddings),
            variance=lambda: torch.stack([variance_hinge(Z, self.target_std, self.eps) for Z in rows]).mean(),
            covariance=lambda: 2 * torch.stack([covariance_penalty(Z) for Z in rows]).mean(),
        )
        losses, parts = {}, {}
        for name, term in terms.items():
            weight = self.weights[name]
            with torch.set_grad_enabled(torch.is_grad_enabled() and weight != 0):
                value = term()
            losses[f'loss_{name}'] = weight * value
            parts[name] = value.detach()
        return {**losses, **parts}

    def invariance(self, embeddings: Embeddings) -> Tensor:
        """mean over pairs of ||p - t||^2 (/ q), over the rows of all ranks."""
        pairs = embeddings.symmetric_pairs()
        if not pairs and self.weights['invariance'] == 0:
            return embeddings.online.new_zeros(())
        if not pairs:
            raise ValueError(
                'No pair of views to compare: a batch needs at least two views. Check the views of the data config.'
            )
        predicted, target = embeddings.predicted, embeddings.target
        distances = [squared_distance(predicted[i], target[j], self.reduction) for i, j in pairs]
        return global_mean(torch.stack(distances).mean())
