"""Heads of the spectrum of the embeddings: their singular values, and the contrast that decomposes their graph."""

import torch
from torch import Tensor

from mmkernel.checks import check_numbers, check_words
from mmkernel.kernels.engine import Engine
from mmkernel.losses.alignment import compared_pairs, paired_distance
from mmkernel.losses.spectrum import (
    centroid_norms,
    log_frobenius_terms,
    spectral_contrastive,
    wasserstein_to_uniform,
)
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.registry import MODELS

OBJECTIVES = ('centroids', 'wasserstein', 'frobenius')


@MODELS.register_module()
class SpectrumHead(Head):
    """alignment_weight * alignment + spectrum_weight * f(singular values of the embeddings).

    'centroids': -||C||_* + local_weight * mean_n ||Z_n||_*, C the mean view of each image, Z_n the views of image n, on
        the sphere; there is no alignment (Yerxa et al., MMCR, NeurIPS 2023).
    'wasserstein': mean_pairs ||p_i - t_j||^2, and the distance of mean and covariance of all views on the sphere to
        those of the uniform distribution (Fang et al., ICLR 2024). For use beside another objective, ``SumHead`` and
        ``alignment_weight=0``.
    'frobenius': V q sum_v mean (z_v - mean z)^2, and sum_v log ||C_v / tr C_v||_F^2, for columns of length 1 (Skean et
        al., FroSSL, ECCV 2024).

    Args:
        objective: one of these; ``mmkernel.losses.spectrum`` has the formulas.
        alignment_weight: of 'wasserstein' and 'frobenius'.
        spectrum_weight: of the second term.
        local_weight: lambda of 'centroids'.
        normalize: of 'centroids': rows to the sphere.
        with_targets: of 'centroids': the target rows, those of a momentum encoder, are further views of each image.
        squared: of 'wasserstein': W_2^2 in place of W_2.
        precision, layout, transport_dtype: of the Gram matrices of 'frobenius'; ``mmkernel.kernels.engine.Engine``.
    """

    def __init__(
        self,
        objective: str = 'centroids',
        alignment_weight: float = 1.0,
        spectrum_weight: float = 1.0,
        local_weight: float = 0.0,
        normalize: bool = True,
        with_targets: bool = False,
        squared: bool = False,
        precision: str = 'auto',
        layout: str = 'auto',
        transport_dtype: str | None = None,
    ) -> None:
        super().__init__()
        check_words('SpectrumHead', objective=(objective, OBJECTIVES))
        weights = dict(alignment_weight=alignment_weight, local_weight=local_weight)
        check_numbers('SpectrumHead', zero=True, spectrum_weight=spectrum_weight, **weights)
        self.objective, self.normalize, self.squared, self.with_targets = objective, normalize, squared, with_targets
        self.alignment_weight, self.spectrum_weight, self.local_weight = alignment_weight, spectrum_weight, local_weight
        self.engine = Engine(precision, layout, transport_dtype)

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        z, predicted, target = embeddings.online, embeddings.predicted, embeddings.target
        needed = self.objective != 'wasserstein' or self.alignment_weight != 0
        pairs = compared_pairs(predicted, target, embeddings.pairs, needed=needed)
        if self.objective == 'centroids':
            views = torch.cat([z, target]) if self.with_targets else z
            centroids, local = centroid_norms(views, self.normalize, self.local_weight != 0)
            return weighted(centroids=(-self.spectrum_weight, centroids), local=(self.local_weight, local))
        if self.objective == 'frobenius':
            options = self.engine.options(z, embeddings.computed_in)
            alignment, spectrum = log_frobenius_terms(z, pairs, **options)
        else:
            spectrum = wasserstein_to_uniform(z, self.squared)
            alignment = paired_distance(predicted, target, pairs) if self.alignment_weight else spectrum.new_zeros(())
        return weighted(alignment=(self.alignment_weight, alignment), spectrum=(self.spectrum_weight, spectrum))


@MODELS.register_module()
class SpectralContrastiveHead(Head):
    """(1/mu) mean_pairs [ -2 mean_n p_n.t_n + (1 / (N (N-1))) sum_{n != m} (p_n.t_m)^2 ].

    Rows longer than sqrt(mu) are shortened to it. HaoChen et al., Provable guarantees for self-supervised deep learning
    with spectral contrastive loss, NeurIPS 2021. Up to a constant, alignment and the MMD^2 to N(0, I) under the kernel
    (u.v)^2.

    Args:
        mu: the square of the length that rows may have: 1 for CIFAR-10, 10 for ImageNet in the official code.
        weight: of the whole.
    """

    def __init__(self, mu: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        check_numbers('SpectralContrastiveHead', mu=mu, weight=weight)
        self.mu, self.weight = mu, weight

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        views = embeddings.predicted, embeddings.target
        attraction, repulsion = spectral_contrastive(*views, self.mu, embeddings.pairs)
        return weighted(attraction=(self.weight, attraction), repulsion=(self.weight, repulsion))
