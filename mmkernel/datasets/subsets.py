"""Sources made from another source: a part of its images, or its images transformed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmkernel.checks import check_words
from mmkernel.registry import DATASETS, TRANSFORMS

from .colors import RandomGrayscale
from .corruptions import GaussianNoise, Sobel
from .draws import SUBSET, draw_per_class, generator, smallest_keys
from .geometry import RandomRotation
from .label_checks import targets_of
from .names import rows_named
from .operations import Operation
from .paths import taken
from .sources import Source
from .training import as_source, transformed

TASKS: dict[str, tuple[list[str], tuple[float, ...]]] = {
    'grey': (['colour', 'grey'], (0.8, 0.2)),  # grey as often as the augmentation of pretraining makes it
    'rotation': (['0', '90', '180', '270'], (0.25,) * 4),
    'noise': (['as it is', 'noise'], (0.5, 0.5)),
    'sobel': (['as it is', 'sobel'], (0.5, 0.5)),
}


@DATASETS.register_module()
class Subset(Source):
    """Some images of ``source``, in its order, under its labels (or targets) and classes.

    It takes ``on_corrupt`` from the source; a damaged image is replaced by another of the subset, never from outside.

    Exactly one of
    names: a text file with one name per line, e.g. ``n01440764_10074.JPEG``: the published 1 % and 10 % of ImageNet (Chen et
        al., ICML 2020); or a table, JSON, or the names themselves: see ``rows_named``.
    fraction: of each class, rounded, at least one image. Without labels: of all images.
    per_class: images of each class; ValueError if a class has fewer.
    seed: of the draw, which depends on labels, amount and seed alone; larger amounts contain the smaller ones.
    complement: the other images instead.
    """

    def __init__(
        self,
        source: Source | dict,
        names: str | Sequence[str] | None = None,
        fraction: float | None = None,
        per_class: int | None = None,
        seed: int = 0,
        complement: bool = False,
    ) -> None:
        self.source = as_source(source)
        super().__init__(self.source.on_corrupt)
        if sum(v is not None for v in (names, fraction, per_class)) != 1:
            raise ValueError(
                f'Subset takes exactly one of names, fraction and per_class; got names={names!r}, fraction={fraction}, '
                f'per_class={per_class}.'
            )
        labels = np.asarray(self.source.labels)
        rows = rows_named(self.source, names) if names is not None else _drawn(labels, fraction, per_class, seed)
        self.rows = np.setdiff1d(np.arange(len(labels)), rows) if complement else np.sort(rows)
        self.labels, self.classes = labels[self.rows], list(self.source.classes)
        targets = targets_of(self.source)
        if targets is not None:
            self.targets = targets[self.rows]

    def file_names(self) -> Sequence[str] | None:
        return taken(self.source.file_names(), self.rows)

    def image_files(self) -> Sequence[str] | None:
        found = self.source.image_files()
        per_image = found is not None and len(found) == len(self.source) > 1
        return taken(found, self.rows) if per_image else found

    def read(self, i: int) -> np.ndarray:
        return self.source.pixels(int(self.rows[i]))

    def name(self, i: int) -> str:
        return self.source.name(int(self.rows[i]))


def _drawn(labels: np.ndarray, fraction: float | None, per_class: int | None, seed: int) -> np.ndarray:
    """Rows of the draw: the first ones of a seeded permutation of each class."""
    if fraction is not None and not 0 < fraction <= 1:
        raise ValueError(f'Subset: fraction={fraction}; expected a part of each class above 0, up to 1 (0.01 is 1 %).')
    if per_class is not None and (per_class < 1 or (labels < 0).any()):
        raise ValueError(
            f'Subset: per_class={per_class} needs a number >= 1 and a labelled source; {int((labels < 0).sum())} of '
            f'{len(labels)} images have no label. A fraction can be drawn without labels.'
        )
    return draw_per_class(
        labels,
        lambda label, n: per_class or max(1, round(fraction * n)),
        lambda label, members, k: smallest_keys(generator(seed, 0, int(label) + 1, purpose=SUBSET), members, k),
    )


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
        check_words(task=(task, TASKS))
        self.source, self.task, self.seed = as_source(source), task, seed
        super().__init__(self.source.on_corrupt)
        self.transform = TRANSFORMS.build(transform) if isinstance(transform, dict) else transform
        self.classes, odds = TASKS[task]
        draws = np.array([generator(seed, 0, i).random() for i in range(len(self.source))])
        self.labels = np.searchsorted(np.cumsum(odds)[:-1], draws, side='right')
        self.steps: list[Operation | None] = dict(
            grey=[None, RandomGrayscale(1.0)],
            rotation=[RandomRotation((angle,)) for angle in (0, 90, 180, 270)],
            noise=[None, GaussianNoise((noise_sigma, noise_sigma))],
            sobel=[None, Sobel(1.0)],
        )[task]

    def name(self, i: int) -> str:
        return f'{self.source.name(i)}, {self.classes[self.labels[i]]}'

    def image_files(self) -> Sequence[str] | None:
        return self.source.image_files()

    def read(self, i: int) -> np.ndarray:
        image = transformed(self.source.pixels(i), self.transform, self.source.name(i))
        if self.task == 'grey' and image.shape[2] != 3:
            raise ValueError(
                f'{image.shape[2]} channel(s) cannot lose their colour: task grey is not defined for them.'
            )
        step, rng = self.steps[self.labels[i]], generator(self.seed, 0, i, stream=1)
        return image if step is None else step.exact(image, step.sample(rng, *image.shape[:2]))
