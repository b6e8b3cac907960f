"""Alignment + distance of the embedding distribution to the uniform distribution on the sphere."""

from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.distributed import world_size
from mmkernel.kernels import Kernel
from mmkernel.kernels.composites import check_kernel
from mmkernel.kernels.energy import aligned_energies
from mmkernel.kernels.engine import Engine
from mmkernel.losses.alignment import REDUCTIONS, compared_pairs, paired_distance
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.registry import KERNELS, MODELS


@MODELS.register_module()
class KernelMMDHead(Head):
    """alignment_weight * mean_pairs ||p_i - t_j||^2 + kernel_weight * mean_views (1/N^2) sum_{n,m} phi(z_n.z_m).

    Zheng et al., Self-supervised learning with rotation-invariant kernels, ICLR 2023. With
    ``RBFKernel``, ``statistic='U'``, ``log=True``: alignment and uniformity, Wang & Isola, ICML 2020.
    All rows are normalised here, so everything lives on the sphere.

    Args:
        kernel: phi; a Kernel or its config.
        alignment_weight, kernel_weight: of the two terms.
        statistic: 'V' takes all N^2 pairs, 'U' those with n != m.
        log: the logarithm of each view's energy; refused for a kernel that can be <= 0.
        reduction: 'sample' is mean ||.||^2, 'element' divides that by q as well, as the published coefficients expect:
            40 000 with 'element' at q = 32 768 is 1.22 with 'sample'.
        regularize: which views the kernel term runs over, 'online' (all) or 'target'.
        precision, layout, transport_dtype: how the Gram matrices are made; see ``mmkernel.kernels.engine.Engine``.
    """

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
    ) -> None:
        super().__init__()
        words = dict(statistic=(statistic, ('V', 'U')), reduction=(reduction, REDUCTIONS))
        check_words('KernelMMDHead', **words, regularize=(regularize, ('online', 'target')))
        check_numbers('KernelMMDHead', zero=True, alignment_weight=alignment_weight, kernel_weight=kernel_weight)
        self.kernel = KERNELS.build(kernel) if isinstance(kernel, dict) else check_kernel(kernel, 'KernelMMDHead')
        self.alignment_weight, self.kernel_weight = alignment_weight, kernel_weight
        self.distance_weight = ('alignment_weight', alignment_weight)
        self.engine = Engine(precision, layout, transport_dtype)
        self.statistic, self.log, self.reduction, self.regularize = statistic, log, reduction, regularize

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        predicted, target = embeddings.predicted, embeddings.target
        pairs = compared_pairs(predicted, target, embeddings.pairs)
        views = embeddings.online if self.regularize == 'online' else target  # (V or G, B, q)
        together = pairs if predicted is views and target is views else ()
        options = self.engine.options(views, embeddings.computed_in)
        alignment, energies = aligned_energies(
            views, self.kernel, together, self.statistic, reduction=self.reduction, **options
        )  # (), (V or G,)
        if not together:
            alignment = paired_distance(predicted, target, pairs, self.reduction)
        if self.log:
            self._check_positive(embeddings.width)
        kernel = (energies.log() if self.log else energies).mean()
        energy = energies.detach().mean() if self.log else kernel.detach()
        terms = weighted(alignment=(self.alignment_weight, alignment), kernel=(self.kernel_weight, kernel))
        return terms | self._unbiased_mmd2(energy, embeddings)

    def _check_positive(self, q: int) -> None:
        least = self.kernel.minimum(q)
        if least <= 0:
            raise ValueError(
                f'log=True needs a kernel with phi > 0 on [-1, 1]; {type(self.kernel).__name__} goes down to '
                f'{least:.3g} at q = {q}. Use log=False, or a positive kernel such as RBFKernel.'
            )

    def _unbiased_mmd2(self, energy: Tensor, embeddings: Embeddings) -> dict[str, Tensor]:
        """The U statistic minus b_0: zero in the mean for uniform embeddings; for reading, not for training.

        Left out where b_0 is not known.
        """
        q, N = embeddings.width, embeddings.online.shape[1] * world_size()
        phi_at_one, constant = self.kernel.value_at_one(q), self.kernel.known_constant(q)
        if constant is None:
            return {}
        if self.statistic == 'U':
            return {'mmd2': energy - constant}
        return {'mmd2': energy * (N / (N - 1)) - (phi_at_one / (N - 1) + constant)}
