"""Learned augmentation policies, with parameters drawn from our own generator so that a view can be replayed."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from PIL import Image
from torchvision.transforms import AutoAugment as _AutoAugment
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from mmkernel.registry import TRANSFORMS

from .operations import Operation
from .pixels import with_pillow


@TRANSFORMS.register_module()
class AutoAugment(Operation):
    """One of the policy's sub-policies: two operations, each with its own probability, strength and random sign.

    Cubuk et al., AutoAugment: learning augmentation strategies from data, CVPR 2019. ``policy``: 'imagenet', 'cifar10' or
    'svhn', with torchvision's tables and operations. Images of other than three channels are taken plane by plane.
    """

    def __init__(self, policy: str = 'imagenet', fill: int | None = None, probability: float = 1.0) -> None:
        super().__init__(probability)
        names = [known.value for known in AutoAugmentPolicy]
        if policy not in names:
            raise ValueError(f'AutoAugment: policy must be one of {", ".join(names)}, got {policy!r}')
        self.reference = _AutoAugment(AutoAugmentPolicy(policy))
        self.fill = fill

    def sample(self, rng: Generator, height: int, width: int) -> list[tuple[str, float]]:
        """(operation, signed strength) of those that are applied."""
        policy = self.reference.policies[int(rng.integers(len(self.reference.policies)))]
        space = self.reference._augmentation_space(10, (height, width))
        chances, signs = rng.random(2).tolist(), rng.integers(2, size=2).tolist()
        chosen = []
        for (name, probability, level), chance, sign in zip(policy, chances, signs, strict=True):
            if chance <= probability:
                strengths, signed = space[name]
                strength = float(strengths[level]) if level is not None else 0.0
                chosen.append((name, -strength if signed and sign == 0 else strength))
        return chosen

    def apply(self, image: np.ndarray, params: list[tuple[str, float]]) -> np.ndarray:
        return with_pillow(image, lambda plane: self._chain(plane, params))

    def _chain(self, image: Image.Image, params: list[tuple[str, float]]) -> Image.Image:
        fill = None if self.fill is None else [float(self.fill)] * len(image.getbands())
        for name, strength in params:
            image = _apply_op(image, name, strength, InterpolationMode.NEAREST, fill)
        return image
