"""Alignment + tests of normality of random slices of the embeddings."""

from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.losses.alignment import ALIGNMENTS, REDUCTIONS, invariance
from mmkernel.losses.order_statistics import TAILS
from mmkernel.losses.sliced import STATISTICS, center_scale_shape, draw_slices, sliced
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.state import LARGEST_SEED, HostCounters, generator_of
from mmkernel.registry import MODELS


@MODELS.register_module()
class SlicedHead(HostCounters, Head):
    """alignment_weight * mean_v ||z_v - mean of global views||^2 / q + normality_weight * mean_a statistic(z a).

    Balestriero & LeCun, LeJEPA, 2025: the defaults, Epps and Pulley's statistic on slices a, weights 1 - lambda, lambda.
    With ``statistic='wasserstein'``, ``standardize=True``: VISReg, 2026. Embeddings are neither centred nor normalised.

    Args:
        statistic: 'epps_pulley', 'cramer', 'cramer_von_mises', 'watson', 'anderson_darling' or 'wasserstein';
            ``mmkernel.losses.sliced`` has the formulas. Each view is tested by itself; the mean over views counts.
        num_slices: K directions, drawn anew in each step from (``seed``, calls of ``commit``), equal on all ranks.
        alignment_weight, normality_weight: of the two terms.
        align: 'mean': every view to the mean of the global views, which are the target views; 'pairs': pairs of views.
        reduction: of the alignment, 'element' or 'sample': with or without division by q.
        knots, t_max, two_sided, scale_by_rows: of 'epps_pulley'; the last one keeps its factor N, rows of all ranks.
        tail: of 'anderson_darling': 'exact', or 'fitted' beyond 3 as in published code.
        clamp: of 'wasserstein': levels of quantiles stay in [clamp, 1 - clamp].
        standardize: test (z - mean) / std, the std without gradient, and add ``scale_weight`` * mean (std - 1)^2 and
            ``center_weight`` * mean(mean^2). ``eps`` is added to the std; to that of the scale term ``scale_eps``.
        seed: of the slices. The counter of steps is in the checkpoint: a resumed run draws what it would have drawn.
    """

    counters = ('steps',)

    def __init__(
        self,
        statistic: str = 'epps_pulley',
        num_slices: int = 1024,
        alignment_weight: float = 0.95,
        normality_weight: float = 0.05,
        align: str = 'mean',
        reduction: str = 'element',
        knots: int = 17,
        t_max: float = 3.0,
        two_sided: bool = False,
        scale_by_rows: bool = True,
        clamp: float = 0.0,
        standardize: bool = False,
        scale_weight: float = 1.0,
        center_weight: float = 1.0,
        eps: float = 1e-6,
        scale_eps: float | None = None,
        seed: int = 0,
        tail: str = 'exact',
    ) -> None:
        super().__init__()
        words = dict(statistic=(statistic, STATISTICS), align=(align, ALIGNMENTS), reduction=(reduction, REDUCTIONS))
        words |= dict(tail=(tail, TAILS if statistic == 'anderson_darling' else TAILS[:1]))
        check_words('SlicedHead', **words)
        self.weights = dict(
            alignment=alignment_weight, normality=normality_weight, scale=scale_weight, center=center_weight
        )
        check_numbers('SlicedHead', zero=True, **{f'{name}_weight': weight for name, weight in self.weights.items()})
        check_numbers('SlicedHead', whole=True, num_slices=num_slices)
        check_numbers('SlicedHead', whole=True, least=2, knots=knots)
        check_numbers('SlicedHead', t_max=t_max)
        check_numbers('SlicedHead', whole=True, zero=True, most=LARGEST_SEED, seed=seed)
        check_numbers('SlicedHead', zero=True, eps=eps)
        check_numbers('SlicedHead', zero=True, none=True, scale_eps=scale_eps)
        check_numbers('SlicedHead', zero=True, most=0.5 if statistic == 'wasserstein' else 0.0, clamp=clamp)
        self.distance_weight = ('alignment_weight', alignment_weight)
        self.align, self.reduction, self.standardize = align, reduction, standardize
        self.statistic, self.num_slices, self.seed, self.steps = statistic, num_slices, seed, 0  # calls of commit
        self.options = dict(eps=eps, scale_eps=scale_eps) if standardize else {}
        if statistic == 'epps_pulley':
            self.options |= dict(knots=knots, t_max=t_max, two_sided=two_sided, scale_by_rows=scale_by_rows)
        if statistic == 'anderson_darling':
            self.options |= dict(tail=tail)
        if statistic == 'wasserstein':
            self.options |= dict(clamp=clamp)

    def slices(self, like: Tensor) -> Tensor:
        """(q, K) unit directions of this step, for embeddings (..., q)."""
        generator = generator_of(self.seed, self.steps, device=like.device)
        return draw_slices(like.shape[-1], self.num_slices, generator, like)

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z, terms = embeddings.online, {}
        if self.weights['alignment']:
            views = embeddings.predicted, embeddings.target, embeddings.pairs
            terms['alignment'] = invariance(*views, self.align, self.reduction)
        self.expect_commit()
        if self.standardize:
            found = center_scale_shape(z, self.slices(z), self.statistic, **self.options)
            terms |= dict(zip(('center', 'scale', 'normality'), found, strict=True))
        else:
            terms['normality'] = sliced(z, self.slices(z), self.statistic, **self.options)
        return weighted(**{name: (self.weights[name], term) for name, term in terms.items()})

    def commit(self, real: Tensor | None = None) -> None:
        super().commit()
        self.steps += 1
