"""Images made here: like photographs, saturated, and a folder as PASCAL VOC publishes it."""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image


def photograph(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Blotches of all sizes, the larger the stronger, as the spectrum of photographs has it, and two edges; uint8 (H, W, C)."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, channels), np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        grid = rng.standard_normal((cells, cells, 1)) + 0.5 * rng.standard_normal(
            (cells, cells, channels)
        )  # grey above all
        image += (
            cv2.resize(grid.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC).reshape(image.shape)
            / cells
        )
    image[: height // 3] += rng.uniform(-0.5, 0.5, channels)
    image[:, width // 2 :] += rng.uniform(-0.5, 0.5, channels)
    return np.clip(np.rint(128 + 90 * image), 0, 255).astype(np.uint8)


def saturated(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Stripes of pure colours, each with one channel at 0, one at 255 and one that rises; uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.uint8)
    for row in range(0, height, 4):
        image[row : row + 4] = np.stack([np.zeros(width), np.full(width, 255), np.linspace(0, 255, width)], -1)[
            :, rng.permutation(3)
        ].astype(np.uint8)
    return image


def on_device(op, image: np.ndarray, params) -> np.ndarray:
    """The device form on a CPU, of a batch in which another image comes first, drawn otherwise."""
    batch = torch.from_numpy(np.stack([255 - image, image])).permute(0, 3, 1, 2).float()
    other = op.sample(np.random.default_rng(9), *image.shape[:2])
    encoded = torch.tensor([op.encode(other), op.encode(params)], dtype=torch.float32).reshape(2, op.floats)
    made = op.on_device(batch, encoded)
    assert made.dtype == torch.float32
    assert (made == made.round()).all()
    return made[1].permute(1, 2, 0).numpy()


def assert_close(made: np.ndarray, exact: np.ndarray) -> None:
    """What the places where views are made promise each other: 1 level of 255 on average, 4 for 99.9 % of the values."""
    assert made.shape == exact.shape
    difference = np.abs(made.astype(np.int64) - exact)
    assert difference.mean() <= 1
    assert (difference > 4).mean() <= 0.001


def write_voc(root: Path, images: int = 36) -> Path:
    """Bright photographs show a bus, striped ones a cat; every seventh bus is difficult."""
    generator = np.random.default_rng(0)
    lists = root / 'VOCdevkit/VOC2007/ImageSets/Main'
    photos = root / 'VOCdevkit/VOC2007/JPEGImages'
    lists.mkdir(parents=True)
    photos.mkdir()
    for split in ('trainval', 'test'):
        ids = [f'{split}{i}' for i in range(images)]
        (lists / f'{split}.txt').write_text('\n'.join(ids))
        there = {name: generator.random(images) < 0.4 for name in ('bus', 'cat')}
        for k, i in enumerate(ids):
            pixels = generator.integers(0, 90, (20, 24, 3)) + 120 * there['bus'][k]
            pixels[::2] += 40 * there['cat'][k]
            Image.fromarray(pixels.astype(np.uint8)).save(photos / f'{i}.jpg')
        for name, given in there.items():
            values = [(0 if name == 'bus' and k % 7 == 0 else 1) if each else -1 for k, each in enumerate(given)]
            (lists / f'{name}_{split}.txt').write_text(''.join(f'{i} {v}\n' for i, v in zip(ids, values, strict=True)))
    return root
