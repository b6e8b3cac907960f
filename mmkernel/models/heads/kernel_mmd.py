"""Alignment + distance of the embedding distribution to the uniform one on the sphere, or to N(0, I)."""

import math

from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels import Kernel
from mmkernel.kernels.composites import check_kernel
from mmkernel.kernels.energy import aligned_energies
from mmkernel.kernels.engine import Engine
from mmkernel.kernels.normal import check_of_space, energies_to_normal
from mmkernel.kernels.radial import radial_parts
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses.alignment import ALIGNMENTS, REDUCTIONS, compared_pairs, invariance, paired_distance
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.registry import KERNELS, MODELS

TARGETS = ('uniform_sphere', 'normal')


@MODELS.register_module()
class KernelMMDHead(Head):
    """alignment_weight * mean_pairs ||p_i - t_j||^2 + kernel_weight * mean_views (1/N^2) sum_{n,m} K(z_n, z_m).

    Zheng et al., Self-supervised learning with rotation-invariant kernels, ICLR 2023. With
    ``RBFKernel``, ``statistic='U'``, ``log=True``: alignment and uniformity, Wang & Isola, ICML 2020. With
    ``target='normal'``: all of the MMD^2, of rows as they are (KerJEPA, 2025); with ``EppsPulleyKernel``, ``scale_by_rows`` and
    ``align='mean'``: LeJEPA, 2025, without the noise of its slices.

    Args:
        kernel: phi; a Kernel or its config.
        alignment_weight, kernel_weight: of the two terms.
        statistic: 'V' takes all N^2 pairs, 'U' those with n != m.
        log: the logarithm of each view's energy; refused for a kernel that can be <= 0.
        reduction: 'sample' is mean ||.||^2, 'element' divides that by q as well, as the published coefficients expect:
            40 000 with 'element' at q = 32 768 is 1.22 with 'sample'.
        regularize: which views the kernel term runs over, 'online' (all) or 'target'.
        precision, layout, transport_dtype: how the Gram matrices are made; see ``mmkernel.kernels.engine.Engine``.
        target: 'uniform_sphere', whose part of the MMD^2 is a constant and left out; or 'normal', N(0, I_q), which wants a kernel
            of R^q: the term is then ``mmkernel.kernels.mmd2_to_normal``.
        normalize: rows are put on the sphere: of radius 1, or sqrt(q) against 'normal'. None: they are, unless it is 'normal'.
        align: 'pairs' of views, or 'mean': each view to the mean of the global views, which are the target views.
        scale_by_rows: the kernel term times N, the rows of all ranks.
    """

    takes_columns = True  # but against 'normal'

    def __init__(
        self,
        kernel: Kernel | dict,
        alignment_weight: float = 1.0,
        kernel_weight: float = 1.0,
        statistic: str = 'V',
        log: bool = False,
        reduction: str = 'sample',
        regularize: str = 'online',
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
        target: str = 'uniform_sphere',
        normalize: bool | None = None,
        align: str = 'pairs',
        scale_by_rows: bool = False,
    ) -> None:
        super().__init__()
        self.takes_columns = target == 'uniform_sphere' and layout != 'rows'
        words = dict(statistic=(statistic, ('V', 'U')), reduction=(reduction, REDUCTIONS), target=(target, TARGETS))
        check_words('KernelMMDHead', **words, align=(align, ALIGNMENTS), regularize=(regularize, ('online', 'target')))
        check_numbers('KernelMMDHead', zero=True, alignment_weight=alignment_weight, kernel_weight=kernel_weight)
        self.kernel = KERNELS.build(kernel) if isinstance(kernel, dict) else check_kernel(kernel, 'KernelMMDHead')
        _check_target(self.kernel, target, normalize, log)
        self.alignment_weight, self.kernel_weight = alignment_weight, kernel_weight
        self.distance_weight = ('alignment_weight', alignment_weight)
        self.engine = Engine(precision, layout, transport_dtype)
        self.statistic, self.log, self.reduction, self.regularize = statistic, log, reduction, regularize
        self.target, self.align, self.scale_by_rows = target, align, scale_by_rows
        self.normalize = target == 'uniform_sphere' if normalize is None else normalize

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        views = embeddings.online if self.regularize == 'online' else embeddings.target  # (V or G, B, q)
        options = self.engine.options(views, embeddings.computed_in, embeddings.columns)
        compare = _to_uniform if self.target == 'uniform_sphere' else _to_normal
        alignment, kernel, unbiased = compare(self, embeddings, views, options)
        if self.scale_by_rows:
            kernel = kernel * embeddings.rows
        return weighted(alignment=(self.alignment_weight, alignment), kernel=(self.kernel_weight, kernel)) | unbiased


Parts = tuple[Tensor, Tensor, dict[str, Tensor]]  # alignment, kernel term, and the unbiased MMD^2 for the log


def _to_uniform(head: KernelMMDHead, embeddings: Embeddings, views: Tensor, options: dict) -> Parts:
    """Energies on the unit sphere: the MMD^2 to uniform points but for b_0."""
    predicted, target, columns = embeddings.predicted, embeddings.target, embeddings.columns
    pairs = compared_pairs(predicted, target, embeddings.pairs)
    together = pairs if head.align == 'pairs' and predicted is views and target is views else ()
    alignment, energies = aligned_energies(
        views, head.kernel, together, head.statistic, reduction=head.reduction, **options
    )
    if not together:
        alignment = paired_distance(predicted, target, pairs, head.reduction, head.align, columns)
    if head.log:
        _check_positive(head.kernel, embeddings.width)
    kernel = (energies.log() if head.log else energies).mean()
    energy = energies.detach().mean() if head.log else kernel.detach()
    return alignment, kernel, _unbiased_mmd2(head, energy, embeddings)


def _to_normal(head: KernelMMDHead, embeddings: Embeddings, views: Tensor, options: dict) -> Parts:
    """MMD^2 to N(0, I) of rows as they are, or on the sphere of radius sqrt(q), where N(0, I) lies; and their alignment."""
    given = {id(z): z for z in (embeddings.predicted, embeddings.target, views)}
    if head.normalize:
        given = {key: unit_rows(z) * math.sqrt(embeddings.width) for key, z in given.items()}
    predicted, target, views = (given[id(z)] for z in (embeddings.predicted, embeddings.target, views))
    alignment = invariance(predicted, target, embeddings.pairs, head.align, head.reduction)
    energies, targets = energies_to_normal(views, head.kernel, head.statistic, **options)
    kernel, N, q = (energies - 2 * targets).mean(), embeddings.rows, embeddings.width
    if head.statistic == 'U':
        return alignment, kernel, {'mmd2': kernel.detach()}
    if not radial_parts(head.kernel):  # K(z, z) depends on z
        return alignment, kernel, {}
    of_itself = head.kernel.value_at_zero(q) - head.kernel.target_constant(q)
    return alignment, kernel, {'mmd2': kernel.detach() + (energies.detach().mean() - of_itself) / (N - 1)}


def _unbiased_mmd2(head: KernelMMDHead, energy: Tensor, embeddings: Embeddings) -> dict[str, Tensor]:
    """The U statistic minus b_0: zero in the mean for uniform embeddings; for reading, not for training.

    Left out where b_0 is not known.
    """
    q, N = embeddings.width, embeddings.rows
    phi_at_one, constant = head.kernel.value_at_one(q), head.kernel.known_constant(q)
    if constant is None:
        return {}
    if head.statistic == 'U':
        return {'mmd2': energy - constant}
    return {'mmd2': energy * (N / (N - 1)) - (phi_at_one / (N - 1) + constant)}


def _check_positive(kernel: Kernel, q: int) -> None:
    least = kernel.minimum(q)
    if least <= 0:
        raise ValueError(
            f'log=True needs a kernel with phi > 0 on [-1, 1]; {type(kernel).__name__} goes down to '
            f'{least:.3g} at q = {q}. Use log=False, or a positive kernel such as RBFKernel.'
        )


def _check_target(kernel: Kernel, target: str, normalize: bool | None, log: bool) -> None:
    if target == 'normal':
        check_of_space(kernel)
        if log:
            raise ValueError(
                "KernelMMDHead: log=True is the logarithm of an energy on the sphere; with target='normal' the term is an MMD^2, "
                'which may be 0. Use log=False.'
            )
    elif normalize is False:
        raise ValueError(
            "KernelMMDHead: normalize=False with target='uniform_sphere': rows off the sphere have no distance to a "
            "distribution on it. Use target='normal' with a radial kernel, or leave normalize out."
        )
