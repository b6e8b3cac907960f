"""A folder as PASCAL VOC publishes it, of images made here."""

from pathlib import Path

import numpy as np
from PIL import Image


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
