"""A part of a source: by a list of file names, by a fraction, or by images per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmkernel.registry import DATASETS

from .draws import SUBSET, draw_per_class, generator, smallest_keys
from .names import rows_named
from .sources import Source, read_of, targets_of
from .training import as_source


@DATASETS.register_module()
class Subset(Source):
    """Some images of ``source``, in its order, under its labels (or targets) and classes.

    It takes ``on_corrupt`` from the source; a damaged image is replaced by another of the subset, never from outside.

    Exactly one of
    names: a text file with one name per line, e.g. ``n01440764_10074.JPEG``: the published 1 % and 10 % of ImageNet
        (Chen et al., ICML 2020). Or the names themselves.
        Paths below the source's root, tables and JSON are fine too: see ``rows_named``.
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
        super().__init__(getattr(self.source, 'on_corrupt', 'raise'))
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

    def image_files(self) -> list[str] | None:
        found = self.source.image_files() if hasattr(self.source, 'image_files') else None
        per_image = found is not None and len(found) == len(self.source) > 1
        return [found[i] for i in self.rows] if per_image else found

    def read(self, i: int) -> np.ndarray:
        return read_of(self.source, int(self.rows[i]))

    def name(self, i: int) -> str:
        return self.source.name(int(self.rows[i]))


def _drawn(labels: np.ndarray, fraction: float | None, per_class: int | None, seed: int) -> np.ndarray:
    """Rows of the draw: the first so many of one seeded permutation of each class."""
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
