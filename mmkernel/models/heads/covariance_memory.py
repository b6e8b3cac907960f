"""Heads that remember covariances from step to step: a quadratic contrast against them, and their log determinant."""

import torch
from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses.alignment import ALIGNMENTS, REDUCTIONS, invariance, paired_distance
from mmkernel.losses.running_covariance import log_determinants, memory_energy, second_moment
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.joint_embedding import require_width
from mmkernel.models.state import move
from mmkernel.registry import MODELS


@MODELS.register_module()
class QuadraticMemoryHead(Head):
    """alignment_weight * mean_pairs ||p - t||^2 + contrast_weight * mean z'Cz,  C <- momentum * C + (1 - momentum) * S.

    Zhu et al., TiCo: transformation invariance and covariance contrast, 2022. S is the second moment of the online rows
    of all ranks, C starts at 0 and is used after it has been moved, without gradient. All rows are normalised here.

    Args:
        momentum: beta, the fraction kept.
        alignment_weight: 0.5 is the published 1 - cos, 1 is 2 - 2 cos.
        contrast_weight: rho.
        centered: S is the covariance of all views together, divisor V N - 1, in place of the mean of their second
            moments.
        contrast_views: the first so many online views are contrasted (published code: 1); None: all. S is that of all.
        align: 'pairs' of views, or each view to the 'mean' of the target views.
        in_dim: q; filled in.

    Where several batches make a step, C takes the last one.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        alignment_weight: float = 0.5,
        contrast_weight: float = 8.0,
        centered: bool = False,
        contrast_views: int | None = None,
        align: str = 'pairs',
        in_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.in_dim = require_width(self, in_dim)
        check_words('QuadraticMemoryHead', align=(align, ALIGNMENTS))
        weights = dict(alignment_weight=alignment_weight, contrast_weight=contrast_weight)
        check_numbers('QuadraticMemoryHead', zero=True, **weights)
        check_numbers('QuadraticMemoryHead', zero=True, most=1.0, momentum=momentum)
        check_numbers('QuadraticMemoryHead', whole=True, none=True, contrast_views=contrast_views)
        self.momentum, self.centered, self.contrast_views, self.align = momentum, centered, contrast_views, align
        self.alignment_weight, self.contrast_weight = alignment_weight, contrast_weight
        self.register_buffer('covariance', torch.zeros(in_dim, in_dim))  # (q, q)
        self._staged: Tensor | None = None

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        u, compared = unit_rows(embeddings.online), (embeddings.predicted, embeddings.target, embeddings.pairs)
        covariance = self.covariance.to(u).lerp(second_moment(u, self.centered), 1 - self.momentum)
        if self.expect_commit():
            self._staged = covariance
        alignment = paired_distance(*compared, align=self.align) if self.alignment_weight else u.new_zeros(())
        contrasted = u if self.contrast_views is None else u[: self.contrast_views]
        contrast = memory_energy(contrasted, covariance)
        return weighted(alignment=(self.alignment_weight, alignment), contrast=(self.contrast_weight, contrast))

    def commit(self, real: Tensor | None = None) -> None:
        """The covariance of this step."""
        super().commit()
        if self._staged is not None:
            move(self.covariance, self._staged, real)
            self._staged = None


@MODELS.register_module()
class LogDetHead(Head):
    """alignment_weight * mean_pairs ||p - t||^2 / q - entropy_weight * (1/q) sum_v log det(R_v + eps I).

    Ozsoy et al., Self-supervised learning with an information maximization criterion (CorInfoMax), NeurIPS 2022. R_v,
    the covariance of view v about its smoothed mean, is remembered: R <- momentum * R + (1 - momentum) * that of
    the batch, of all ranks. The past has no gradient. R, the means and the determinant are in float64.

    Args:
        alignment_weight: alpha, 500 in the official code.
        entropy_weight: of the log determinants, which are not bounded: the alignment or ``normalize`` holds them.
        momentum, mean_momentum: fractions kept of R and of the mean; 0.01, nearly nothing, in the official code.
        eps: added to the diagonal of R.
        initial: R before the first step, times the identity.
        normalize: embeddings to the sphere first.
        align, reduction: to the other view of a pair, or to the 'mean' of the targets; over q ('element') or not.
        views: V, the number of online views.
        in_dim: q; filled in.

    Where several batches make a step, the state takes the last one.
    """

    def __init__(
        self,
        alignment_weight: float = 500.0,
        entropy_weight: float = 1.0,
        momentum: float = 0.01,
        mean_momentum: float = 0.01,
        eps: float = 1e-6,
        initial: float = 1.0,
        normalize: bool = False,
        align: str = 'pairs',
        reduction: str = 'element',
        views: int = 2,
        in_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.in_dim = require_width(self, in_dim)
        check_words('LogDetHead', align=(align, ALIGNMENTS), reduction=(reduction, REDUCTIONS))
        check_numbers('LogDetHead', zero=True, alignment_weight=alignment_weight, entropy_weight=entropy_weight)
        check_numbers('LogDetHead', zero=True, most=1.0, momentum=momentum, mean_momentum=mean_momentum)
        check_numbers('LogDetHead', eps=eps, initial=initial)
        check_numbers('LogDetHead', whole=True, views=views)
        self.distance_weight = ('alignment_weight', alignment_weight)
        self.alignment_weight, self.entropy_weight, self.normalize = alignment_weight, entropy_weight, normalize
        self.align, self.reduction = align, reduction
        self.options = dict(momentum=momentum, mean_momentum=mean_momentum, eps=eps)
        identity = torch.eye(in_dim, dtype=torch.float64) * initial
        self.register_buffer('covariances', identity.repeat(views, 1, 1))  # (V, q, q)
        self.register_buffer('means', identity.new_zeros(views, in_dim))  # (V, q)
        self._staged: tuple[Tensor, Tensor] | None = None

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z, V, terms = embeddings.online, len(self.covariances), {}
        if self.alignment_weight:
            compared = embeddings.predicted, embeddings.target, embeddings.pairs
            distance = paired_distance if self.normalize else invariance
            alignment = distance(*compared, align=self.align, reduction=self.reduction)
            terms['alignment'] = self.alignment_weight, alignment
        if len(z) != V:
            raise ValueError(
                f'LogDetHead keeps the covariances of {V} views, the batch has {len(z)}: set views={len(z)}.'
            )
        z = unit_rows(z) if self.normalize else z
        negative_entropy, *state = log_determinants(z, self.covariances, self.means, **self.options)
        if self.expect_commit():
            self._staged = tuple(state)
        return weighted(**terms, log_determinant=(self.entropy_weight, negative_entropy))

    def commit(self, real: Tensor | None = None) -> None:
        """Covariances and means of this step."""
        super().commit()
        if self._staged is not None:
            move(self.covariances, self._staged[0], real)
            move(self.means, self._staged[1], real)
            self._staged = None
