"""A classifier on an encoder, linear on a frozen one or trained together with it, and its objectives."""

from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkernel.checks import check_numbers, check_words
from mmkernel.models.feature_extractor import FeatureExtractor
from mmkernel.models.joint_embedding import build_part
from mmkernel.models.norms import build_norm
from mmkernel.registry import MODELS


@MODELS.register_module()
class Classifier(FeatureExtractor, BaseModel):
    """logits = W norm(backbone(x)) + b, loss by ``objective``; W ~ N(0, head_std^2), b = 0.

    Inputs: ``dict(inputs=[one view (B, C, H, W)], label=(B,))``, as the data of pretraining with a single view; or, for
    images of several classes, ``targets=(B, C)``.

    Args:
        backbone: module or config.
        num_classes: C; labels run from 0 to C - 1.
        frozen: the backbone keeps its weights *and* its batch-norm statistics: it stays in eval mode, without gradients.
            False: it trains, and so do its statistics, also what the pretraining held fixed (positions of a transformer).
        in_dim: width of the features; None takes the backbone's.
        head_std: of the initial weights; 0: the first logits are 0; None: W and b are drawn as nn.Linear draws them.
        objective: 'OneClass' or 'SeveralClasses', as config or module: the loss, and which part of a batch holds the truth.
        norm_momentum: fraction that the backbone's batch norms keep of their running statistics (None: as they are).
        head_norm: of the features before W, see ``build_norm``; it learns its statistics also where the backbone is frozen.
        data_preprocessor: uint8 -> float, as in pretraining.
    """

    stages = ('backbone', 'head')  # features (B, d), logits (B, C)

    def __init__(
        self,
        backbone: nn.Module | dict,
        num_classes: int,
        frozen: bool = True,
        in_dim: int | None = None,
        head_std: float | None = 0.01,
        objective: nn.Module | dict | None = None,
        norm_momentum: float | None = None,
        head_norm: str | dict | None = None,
        data_preprocessor: nn.Module | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=build_part(data_preprocessor or dict(type='ViewPreprocessor')))
        check_numbers('Classifier', whole=True, least=2, num_classes=num_classes)
        check_numbers('Classifier', zero=True, none=True, head_std=head_std)
        self.backbone = build_part(backbone)
        self.head = _Head(in_dim or self.backbone.out_dim, num_classes, head_norm)
        if head_std is not None:
            nn.init.normal_(self.head.weight, std=head_std)
            nn.init.zeros_(self.head.bias)
        self.objective = build_part(objective or dict(type='OneClass'))
        self.frozen, self.num_classes = frozen, num_classes
        self.register_buffer('steps', torch.zeros((), dtype=torch.int64))  # real steps: 0 is an untrained head
        if norm_momentum is not None:
            if not 0 <= norm_momentum < 1:
                raise ValueError(
                    f'norm_momentum={norm_momentum}; expected the fraction kept, from 0 to below 1 (0.9 is usual).'
                )
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = 1 - norm_momentum
        self.backbone.requires_grad_(not frozen)
        if frozen:
            self.backbone.eval()

    def train(self, mode: bool = True) -> 'Classifier':
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(
        self,
        inputs: list[Tensor],
        sample_index: Tensor | None = None,
        label: Tensor | None = None,
        mode: str = 'loss',
        targets: Tensor | None = None,
    ) -> Any:
        """'loss': dict of the loss and the batch's share of right answers in percent; 'tensor': logits (B, C)."""
        check_words(mode=(mode, ('loss', 'tensor')))
        if len(inputs) != 1:
            raise ValueError(
                f'A classifier trains on one view of an image, the batch has {len(inputs)}: set views=dict(only=dict(...)).'
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(inputs[0])  # (B, d)
        logits = self.head(features)
        if mode == 'tensor':
            return logits
        right = dict(label=label, targets=targets)[self.objective.reads]
        if right is None:
            raise ValueError(
                f'{type(self.objective).__name__} needs the {self.objective.reads} of a batch, this one has none: sources of one '
                "class per image give label, those of several (dict(type='VOC2007', ...)) give targets."
            )
        return self.objective(logits, right)

    def commit(self, real: Tensor | None = None) -> None:
        """After an attempt at an optimizer step: count it where it was real."""
        self.steps += 1 if real is None else real

    def init_weights(self) -> None:
        """Parts initialise themselves when they are built, and a pretrained backbone must not be initialised again."""
        self._is_init = True


class _Head(nn.Linear):
    """W norm(h) + b."""

    def __init__(self, in_dim: int, num_classes: int, norm: str | dict | None) -> None:
        super().__init__(in_dim, num_classes)
        self.norm = build_norm(norm, in_dim)

    def forward(self, h: Tensor) -> Tensor:
        return super().forward(h if self.norm is None else self.norm(h))


@MODELS.register_module()
class OneClass(nn.Module):
    """-log softmax(z_i)_y, mean over images: logits z (B, C), classes y (B,) from 0 to C - 1. Logged: top-1 in percent."""

    reads = 'label'  # the part of a batch that holds the truth

    def forward(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        with torch.autocast(logits.device.type, enabled=False):
            loss = F.cross_entropy(logits.float(), label)
        own = logits.detach().gather(1, label[:, None])
        hits = ((logits.detach() >= own).sum(1) == 1).float().mean()  # a tie counts as wrong
        return dict(loss_classification=loss, top1=100 * hits)


@MODELS.register_module()
class SeveralClasses(nn.Module):
    """sum_c log(1 + exp(-s_ic z_ic)), mean over images: C logistic regressions, s_ic = 1 where class c is there, else -1.

    logits z (B, C); targets (B, C): 1 there, 0 not there, -1 there only as a difficult object, which costs nothing. The
    divisor is B regardless of the -1, so that the mean over processes is the loss of their union. Logged: ``right``, percent of
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
        there = (targets == 1).float()
        with torch.autocast(logits.device.type, enabled=False):
            losses = F.binary_cross_entropy_with_logits(logits.float(), there, weight=counted, reduction='sum')
        right = (((logits.detach() > 0) == (targets == 1)) * counted).sum() / counted.sum().clamp(min=1)
        return dict(loss_classification=losses / len(logits), right=100 * right)
