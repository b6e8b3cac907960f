"""What a classifier minimises, by what its images are: of one class each, or of any number of classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmkernel.registry import MODELS


@MODELS.register_module()
class OneClass(nn.Module):
    """-log softmax(z_i)_y, mean over images: logits z (B, C), classes y (B,) from 0 to C - 1. Logged: top-1 in percent."""

    reads = 'label'  # the part of a batch that says what is right

    def forward(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        with torch.autocast(logits.device.type, enabled=False):
            loss = F.cross_entropy(logits.float(), label)
        own = logits.detach().gather(1, label[:, None])
        hits = (
            ((logits.detach() >= own).sum(1) == 1).float().mean()
        )  # of equal logits none is right, whatever its number
        return dict(loss_classification=loss, top1=100 * hits)


@MODELS.register_module()
class SeveralClasses(nn.Module):
    """sum_c log(1 + exp(-s_ic z_ic)), mean over images: C logistic regressions, s_ic = 1 where class c is there, else -1.

    logits z (B, C); targets (B, C): 1 there, 0 not there, -1 there only as a difficult object, which costs nothing. The
    divisor is B whatever the -1, so that the mean over processes is the loss of their union. Logged: ``right``, percent of
    the logits that count whose sign is s.
    """

    reads = 'targets'

    def forward(self, logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
        if targets.shape != logits.shape:
            raise ValueError(
                f'targets have shape {tuple(targets.shape)}, logits {tuple(logits.shape)}: set model.num_classes to the '
                f'{targets.shape[-1]} classes of the source.'
            )
        counted = (targets >= 0).float()
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.binary_cross_entropy_with_logits(
                logits.float(), (targets == 1).float(), weight=counted, reduction='sum'
            )
        right = (((logits.detach() > 0) == (targets == 1)) * counted).sum() / counted.sum().clamp(min=1)
        return dict(loss_classification=losses / len(logits), right=100 * right)
