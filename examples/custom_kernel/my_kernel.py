"""A kernel and a head of one's own, beside the config that uses them; the package stays untouched."""

import torch
from torch import Tensor

from mmkernel.kernels import Kernel, kernel_energy
from mmkernel.models import Embeddings, KernelMMDHead
from mmkernel.registry import KERNELS, MODELS


@KERNELS.register_module()
class InverseMultiquadric(Kernel):
    """phi(t) = 1 / sqrt(c^2 + 2 - 2t) = 1 / sqrt(c^2 + ||u-v||^2); every b_l > 0."""

    def __init__(self, c: float = 0.5) -> None:
        super().__init__()
        self.c2 = c * c

    def phi(self, t: Tensor, q: int) -> Tensor:
        return (self.c2 + 2 - 2 * t).rsqrt()


@MODELS.register_module()
class WorstViewHead(KernelMMDHead):
    """Alignment + the kernel term of the view that is farthest from uniform, instead of the mean over views."""

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        parts = super().loss(embeddings)
        worst = torch.stack([kernel_energy(z, self.kernel, self.statistic) for z in embeddings.online]).max()
        return {**parts, 'loss_kernel': self.kernel_weight * worst, 'worst_view': worst.detach()}
