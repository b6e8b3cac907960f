"""Operations on pixel values: noise, edges, dropped channels, learned policies.

With the rotations, crops and erased boxes of ``geometry.py`` they make up the ablation of Chen et al., ICML 2020, figure 4.
"""

from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image
from torchvision.transforms import AutoAugment as _AutoAugment
from torchvision.transforms import AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from mmkernel.checks import check_words
from mmkernel.registry import TRANSFORMS

from .operations import Operation, interval, with_pillow


@TRANSFORMS.register_module()
class GaussianNoise(Operation):
    """x + sigma * N(0, 1) per value, rounded and clipped; sigma from U(sigma) in grey levels of 255."""

    def __init__(self, sigma: float | tuple[float, float] = (0.0, 10.0), probability: float = 1.0) -> None:
        super().__init__(probability)
        self.sigma = interval('GaussianNoise', sigma=(0.0, sigma) if np.isscalar(sigma) else sigma)

    def sample(self, rng: Generator, height: int, width: int) -> tuple[float, int]:
        return float(rng.uniform(*self.sigma)), int(rng.integers(2**63))

    def apply(self, image: np.ndarray, params: tuple[float, int]) -> np.ndarray:
        sigma, key = params
        noise = np.random.Generator(np.random.Philox(key=key)).standard_normal(image.shape, np.float32)
        return np.clip(np.rint(image + np.float32(sigma) * noise), 0, 255).astype(np.uint8)


@TRANSFORMS.register_module()
class Sobel(Operation):
    """min(255, |gradient| of the luminance) in all channels, by the 3x3 filters of Sobel, borders reflected.

    One channel is its own luminance; of another number than 1 or 3, each channel alone is filtered.
    """

    def __init__(self, probability: float = 0.5) -> None:
        super().__init__(probability)

    def apply(self, image: np.ndarray, params: Any) -> np.ndarray:
        plane = with_pillow(image, lambda rgb: rgb.convert('L'))[..., None] if image.shape[2] == 3 else image
        # OpenCV drops a single channel
        across, down = (cv2.Sobel(plane, cv2.CV_32F, *order).reshape(plane.shape) for order in ((1, 0), (0, 1)))
        edges = np.minimum(np.rint(np.hypot(across, down)), 255).astype(np.uint8)
        return np.broadcast_to(edges, image.shape).copy()


@TRANSFORMS.register_module()
class ColorDrop(Operation):
    """All but ``keep`` of the three colour channels set to ``fill``. Does nothing unless there are three channels.

    Doersch et al., ICCV 2015; on patches Henaff et al., ICML 2020: without colour, aberration does not give positions away.
    """

    def __init__(self, keep: int = 1, fill: int = 128, probability: float = 1.0) -> None:
        super().__init__(probability)
        if keep not in (1, 2):
            raise ValueError(f'ColorDrop: keep 1 or 2 of three channels, got {keep}')
        self.keep, self.fill = keep, fill

    def sample(self, rng: Generator, height: int, width: int) -> list[int]:
        """Channels dropped."""
        return rng.random(3).argsort(kind='stable')[self.keep :].tolist()

    def apply(self, image: np.ndarray, params: list[int]) -> np.ndarray:
        if image.shape[2] != 3:
            return image
        image = image.copy()
        image[..., params] = self.fill
        return image


@TRANSFORMS.register_module()
class AutoAugment(Operation):
    """One of the policy's sub-policies: two operations, each with its own probability, strength and random sign.

    Cubuk et al., AutoAugment: learning augmentation strategies from data, CVPR 2019. ``policy``: 'imagenet', 'cifar10' or
    'svhn', with torchvision's tables and operations. Images of other than three channels are taken plane by plane.
    """

    def __init__(self, policy: str = 'imagenet', fill: int | None = None, probability: float = 1.0) -> None:
        super().__init__(probability)
        check_words('AutoAugment', policy=(policy, [known.value for known in AutoAugmentPolicy]))
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
        def chain(plane: Image.Image) -> Image.Image:
            fill = None if self.fill is None else [float(self.fill)] * len(plane.getbands())
            for name, strength in params:
                plane = _apply_op(plane, name, strength, InterpolationMode.NEAREST, fill)
            return plane

        return with_pillow(image, chain)
