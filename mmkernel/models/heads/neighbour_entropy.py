"""Alignment - entropy of the embeddings on the sphere, estimated from their neighbours."""

from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels import Kernel
from mmkernel.kernels.composites import check_kernel
from mmkernel.kernels.engine import Engine
from mmkernel.losses.alignment import ALIGNMENTS, REDUCTIONS, paired_distance
from mmkernel.losses.entropy import leave_one_out_log_density, nearest_neighbour_log_density
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.registry import KERNELS, MODELS


@MODELS.register_module()
class EntropyHead(Head):
    """alignment_weight * mean_pairs ||p_i - t_j||^2 + density_weight * mean_views mean_n log density(z_n).

    With a kernel, density(z_n) = (1/(N-1)) sum_{m != n} phi(z_n.z_m), and the second term is the Kullback-Leibler
    divergence to the uniform distribution, up to a constant. Without one, log density(z_n) = -log ||z_n - z_nearest||:
    KoLeo, Sablayrolles et al., ICLR 2019. Oquab et al., DINOv2, 2023, add it to another objective (``SumHead``, with
    ``alignment_weight=0``) and sum it over two views: ``density_weight`` is twice theirs. All rows are normalised here.

    Args:
        kernel: phi >= 0, a Kernel or its config; None: nearest neighbours.
        alignment_weight, density_weight: of the two terms.
        align: 'pairs' of views, or each view to the 'mean' of the target views.
        reduction: of the alignment: 'sample', or 'element', which divides by q.
        regularize: which views the density runs over, 'online' (all) or 'target'.
        eps: of the distance to the nearest neighbour.
        precision, layout, transport_dtype: how a kernel's Gram matrices are made; ``mmkernel.kernels.engine.Engine``.
    """

    def __init__(
        self,
        kernel: Kernel | dict | None = None,
        alignment_weight: float = 1.0,
        density_weight: float = 1.0,
        align: str = 'pairs',
        reduction: str = 'sample',
        regularize: str = 'online',
        eps: float = 1e-8,
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
    ) -> None:
        super().__init__()
        words = dict(align=(align, ALIGNMENTS), reduction=(reduction, REDUCTIONS))
        check_words('EntropyHead', **words, regularize=(regularize, ('online', 'target')))
        check_numbers('EntropyHead', zero=True, alignment_weight=alignment_weight, density_weight=density_weight)
        check_numbers('EntropyHead', eps=eps)
        kernel = KERNELS.build(kernel) if isinstance(kernel, dict) else kernel
        self.kernel = None if kernel is None else check_kernel(kernel, 'EntropyHead')
        self.engine = Engine(precision, layout, transport_dtype)
        if kernel is None and self.engine != Engine():
            raise ValueError('EntropyHead: precision, layout and transport_dtype go with a kernel, got kernel=None.')
        self.alignment_weight, self.density_weight = alignment_weight, density_weight
        self.distance_weight = ('alignment_weight', alignment_weight)
        self.align, self.reduction, self.regularize, self.eps = align, reduction, regularize, eps

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        views, terms = embeddings.online if self.regularize == 'online' else embeddings.target, {}
        if self.alignment_weight:
            compared = embeddings.predicted, embeddings.target, embeddings.pairs
            terms['alignment'] = (self.alignment_weight, paired_distance(*compared, self.reduction, self.align))
        if self.kernel is None:
            densities = nearest_neighbour_log_density(views, self.eps)
        else:
            options = self.engine.options(views, embeddings.computed_in)
            densities = leave_one_out_log_density(views, self.kernel, **options)
        return weighted(**terms, log_density=(self.density_weight, densities.mean()))
