"""Images of another source, some of them transformed, with the transformation as their label."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmkernel.registry import DATASETS, TRANSFORMS

from .draws import generator
from .images import check_pixels
from .sources import Source, one_of, read_of
from .training import as_source

TASKS: dict[str, tuple[list[str], tuple[float, ...]]] = {
    'grey': (['colour', 'grey'], (0.8, 0.2)),  # grey as often as the augmentation of pretraining makes it
    'rotation': (['0', '90', '180', '270'], (0.25,) * 4),
    'noise': (['as it is', 'noise'], (0.5, 0.5)),
    'sobel': (['as it is', 'sobel'], (0.5, 0.5)),
}


@DATASETS.register_module()
class TransformedSource(Source):
    """Image i of ``source`` after ``transform`` and after transformation k = label, drawn by (seed, i) and a task's odds.

    Chen et al., A simple framework for contrastive learning of visual representations, ICML 2020, table 3. Tasks: 'grey'
    (luminance in all channels; refused for images without three), 'rotation' (quarter turns), 'noise' (``noise_sigma``
    grey levels of 255; the paper gives none), 'sobel'.
    """

    def __init__(
        self, source: Source | dict, task: str, transform: Any = None, seed: int = 0, noise_sigma: float = 25.0
    ) -> None:
        one_of(task, 'task', tuple(TASKS))
        self.source, self.task, self.seed = as_source(source), task, seed
        super().__init__(getattr(self.source, 'on_corrupt', 'raise'))
        self.transform = TRANSFORMS.build(transform) if isinstance(transform, dict) else transform
        self.classes, odds = TASKS[task]
        edges = np.cumsum(odds)[:-1]
        draws = np.array([generator(seed, 0, i).random() for i in range(len(self.source))])
        self.labels = np.searchsorted(edges, draws, side='right').astype(np.int64)
        self.operations = dict(
            grey=TRANSFORMS.build(dict(type='RandomGrayscale', probability=1.0)),
            noise=TRANSFORMS.build(dict(type='GaussianNoise', sigma=(noise_sigma, noise_sigma))),
            sobel=TRANSFORMS.build(dict(type='Sobel', probability=1.0)),
        )

    def name(self, i: int) -> str:
        return f'{self.source.name(i)}, {self.classes[self.labels[i]]}'

    def image_files(self) -> list[str] | None:
        return self.source.image_files() if hasattr(self.source, 'image_files') else None

    def read(self, i: int) -> np.ndarray:
        image = read_of(self.source, i)
        check_pixels(image, lambda: f'{type(self.source).__name__}, {self.source.name(i)},')
        image = image if self.transform is None else self.transform(image)
        check_pixels(image, lambda: f'{type(self.transform).__name__} of {self.source.name(i)}')
        label = int(self.labels[i])
        if self.task == 'grey' and image.shape[2] != 3:
            raise ValueError(
                f'{image.shape[2]} channel(s) cannot lose their colour: task grey is not defined for them.'
            )
        if self.task == 'rotation':
            if label % 2 and image.shape[0] != image.shape[1]:
                raise ValueError(
                    f'{self.source.name(i)} is {image.shape[0]} x {image.shape[1]}: a quarter turn would change its size. '
                    'Give a transform that ends in a square, e.g. dict(type="CenterView", resize=256, crop=224).'
                )
            return np.rot90(image, label)
        if not label:
            return image
        operation = self.operations[self.task]
        return operation.apply(image, operation.sample(generator(self.seed, 0, i, stream=1), *image.shape[:2]))
