"""Alignment + distance of the embedding distribution to the uniform distribution on the sphere."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import global_mean, world_size
from mmkernel.kernels import Kernel, kernel_energy
from mmkernel.losses.alignment import REDUCTIONS, squared_distance
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head
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
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ('statistic', statistic, ('V', 'U')),
            ('reduction', reduction, REDUCTIONS),
            ('regularize', regularize, ('online', 'target')),
        ):
            if value not in allowed:
                raise ValueError(f'KernelMMDHead.{name} is {allowed[0]!r} or {allowed[1]!r}, got {value!r}.')
        self.kernel = KERNELS.build(kernel) if isinstance(kernel, dict) else kernel
        self.alignment_weight, self.kernel_weight = alignment_weight, kernel_weight
        self.statistic, self.log, self.reduction, self.regularize = statistic, log, reduction, regularize

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        alignment = self.alignment(embeddings)
        views = embeddings.online if self.regularize == 'online' else embeddings.target  # (V or G, B, q)
        energies = torch.stack([kernel_energy(z, self.kernel, self.statistic) for z in views])
        kernel = (self._logarithm(energies, embeddings.width) if self.log else energies).mean()
        return {
            'loss_alignment': self.alignment_weight * alignment,
            'loss_kernel': self.kernel_weight * kernel,
            'alignment': alignment.detach(),
            'kernel': kernel.detach(),
            'mmd2': self._unbiased_mmd2(energies.detach().mean(), views),
        }

    def alignment(self, embeddings: Embeddings) -> Tensor:
        """mean over pairs of ||p^ - t^||^2, over the rows of all ranks."""
        pairs = embeddings.symmetric_pairs()
        if not pairs:
            raise ValueError(
                'No pair of views to align: a batch needs at least two views. Check the views of the data config.'
            )
        predicted = F.normalize(embeddings.predicted, dim=-1)  # (V, B, q)
        same = embeddings.target is embeddings.predicted
        target = predicted if same else F.normalize(embeddings.target, dim=-1)  # (G, B, q)
        distances = [squared_distance(predicted[i], target[j], self.reduction) for i, j in pairs]
        return global_mean(torch.stack(distances).mean())

    def _logarithm(self, energies: Tensor, q: int) -> Tensor:
        if self.kernel.minimum(q) <= 0:
            raise ValueError(
                f'log=True needs a kernel with phi > 0 on [-1, 1]; {type(self.kernel).__name__} goes down to '
                f'{self.kernel.minimum(q):.3g} at q = {q}. Use log=False, or a positive kernel such as RBFKernel.'
            )
        return energies.log()

    def _unbiased_mmd2(self, energy: Tensor, views: Tensor) -> Tensor:
        """The U statistic minus b_0: zero in the mean for uniform embeddings; for reading, not for training."""
        q, N = views.shape[-1], views.shape[1] * world_size()
        if self.statistic == 'V':
            energy = (N * energy - self.kernel.value_at_one(q)) / (N - 1)
        return energy - float(self.kernel.coefficients(q, 0)[0])
