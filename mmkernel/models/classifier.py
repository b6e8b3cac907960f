"""A classifier on an encoder: linear on a frozen one, or trained together with it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.models.joint_embedding import build_part
from mmkernel.registry import MODELS


@MODELS.register_module()
class Classifier(BaseModel):
    """logits = W backbone(x) + b, loss by ``objective``; W ~ N(0, head_std^2), b = 0.

    Inputs: ``dict(inputs=[one view (B, C, H, W)], label=(B,))``, as the data of pretraining with a single view; or, for
    images of several classes, ``targets=(B, C)``.

    Args:
        backbone: module or config.
        num_classes: C; labels run from 0 to C - 1.
        frozen: the backbone keeps its weights *and* its batch-norm statistics: it stays in eval mode, without gradients.
            False: it trains, and so do its statistics, also what the pretraining held fixed (positions of a transformer).
        in_dim: width of the features; None takes the backbone's.
        head_std: of the initial weights; 0: the first logits are 0.
        objective: 'OneClass' or 'SeveralClasses', as config or module: the loss, and what of a batch says what is right.
        norm_momentum: fraction that the backbone's batch norms keep of their running statistics (None: as they are).
        data_preprocessor: uint8 -> float, as in pretraining.
    """

    def __init__(
        self,
        backbone: nn.Module | dict,
        num_classes: int,
        frozen: bool = True,
        in_dim: int | None = None,
        head_std: float = 0.01,
        objective: nn.Module | dict | None = None,
        norm_momentum: float | None = None,
        data_preprocessor: nn.Module | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=build_part(data_preprocessor or dict(type='ViewPreprocessor')))
        check_numbers('Classifier', whole=True, num_classes=num_classes)
        check_numbers('Classifier', zero=True, head_std=head_std)
        if num_classes < 2:
            raise ValueError(f'Classifier.num_classes={num_classes}; expected at least 2.')
        self.backbone = build_part(backbone)
        self.head = nn.Linear(in_dim or self.backbone.out_dim, num_classes)
        nn.init.normal_(self.head.weight, std=head_std)
        nn.init.zeros_(self.head.bias)
        self.objective = build_part(objective or dict(type='OneClass'))
        self.frozen, self.num_classes = frozen, num_classes
        self.register_buffer(
            'steps', torch.zeros((), dtype=torch.int64)
        )  # real optimizer steps: 0 is an untrained head
        if norm_momentum is not None:
            self.set_norm_momentum(norm_momentum)
        self.backbone.requires_grad_(not frozen)
        if frozen:
            self.backbone.eval()

    def train(self, mode: bool = True) -> Classifier:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def set_norm_momentum(self, kept: float) -> None:
        """Batch norms of the backbone keep the fraction ``kept`` of their running statistics in each step."""
        if not 0 <= kept < 1:
            raise ValueError(f'norm_momentum={kept}; expected the fraction kept, from 0 to below 1 (0.9 is usual).')
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1 - kept

    def forward(
        self,
        inputs: list[Tensor],
        sample_index: Tensor | None = None,
        label: Tensor | None = None,
        mode: str = 'loss',
        targets: Tensor | None = None,
    ) -> Any:
        """'loss': dict of the loss and the batch's share of right answers in percent; 'tensor': logits (B, C)."""
        if mode not in ('loss', 'tensor'):
            raise ValueError(f"mode is 'loss' or 'tensor', got {mode!r}.")
        images = self._only_view(inputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.backbone(images)  # (B, d)
        logits = self.head(features)
        if mode == 'tensor':
            return logits
        right = dict(label=label, targets=targets)[self.objective.reads]
        if right is None:
            raise ValueError(
                f'{type(self.objective).__name__} needs the {self.objective.reads} of a batch, this one has none: sources '
                "of one class per image give label, those of several, such as dict(type='VOC2007', ...), give targets."
            )
        return self.objective(logits, right)

    def commit(self, real: Tensor | None = None) -> None:
        """After an attempt at an optimizer step: count it where it was real."""
        self.steps += 1 if real is None else real

    @torch.no_grad()
    def extract(self, images: Tensor, stage: str = 'backbone') -> Tensor:
        """Eval mode: ``stage`` 'backbone' for features (B, d), 'head' for logits (B, C); uint8 or normalised images."""
        if stage not in ('backbone', 'head'):
            raise ValueError(f"stage is 'backbone' or 'head', got {stage!r}: a classifier has no neck.")
        training = self.training
        self.eval()
        try:
            features = self.backbone(self.data_preprocessor.normalize(images))
            return self.head(features) if stage == 'head' else features
        finally:
            self.train(training)

    def init_weights(self) -> None:
        """Parts initialise themselves when they are built, and a pretrained backbone must not be initialised again."""
        self._is_init = True

    @staticmethod
    def _only_view(views: list[Tensor]) -> Tensor:
        if len(views) != 1:
            raise ValueError(
                f'A classifier trains on one view of an image, the batch has {len(views)}. Use a data config of '
                'configs/benchmarks, or views=dict(only=dict(...)).'
            )
        return views[0]
