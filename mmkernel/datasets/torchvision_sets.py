"""Any data set of torchvision by its name."""

import inspect
from typing import Any

import numpy as np
import torchvision.datasets as published
from PIL import Image
from torch import Tensor

from mmkernel.checks import check_words, did_you_mean
from mmkernel.registry import DATASETS

from .images import MODES, CorruptImageError, to_array
from .sources import Source, existing_folder

_NAMED = ('targets', '_labels', 'labels', 'y')  # where torchvision's classes keep labels
_PAIRED = ('samples', '_samples', 'index', '_flat_character_images')  # or files, or pixels, and labels together


@DATASETS.register_module()
class Torchvision(Source):
    """The images and labels of ``torchvision.datasets.<name>(root, **options)``, which nothing is ever downloaded for.

    name: that of a class whose items are (image, number of its class), e.g. 'EuroSAT', 'SVHN', 'GTSRB', 'Places365'.
    labels=False: each label is -1, for sets whose items have anything else beside the image (boxes, attributes, captions).
    mode: 'RGB' or 'L'. options: of the class, e.g. split='test', train=False. Class names are those that it gives, if any.
    Sets that have a source of their own here (``STL10``, ``Food101``, ...) are better read by it: it names files and splits.
    Each process that workers are spawned into opens the set anew; forked ones share it.
    """

    def __init__(
        self,
        name: str,
        root: str | None = None,
        labels: bool = True,
        mode: str = 'RGB',
        on_corrupt: str | int = 'raise',
        **options: Any,
    ) -> None:
        super().__init__(on_corrupt)
        check_words(mode=(mode, MODES))
        self.mode, self.kind, self.options = mode, _class_named(name), options
        if root is not None:
            self.options['root'] = str(
                existing_folder(root, f'Torchvision {name}', f'the files of torchvision.datasets.{name}')
            )
        self._check_options()
        data = self.arrays
        if not len(data):
            raise FileNotFoundError(f'Torchvision: {name} has no images with {self.options}.')
        self.classes = _class_names(data) if labels else []
        self.labels = self._labels_of(data) if labels else np.full(len(data), -1)
        if self.labels.max() >= len(self.classes):
            self.classes = []

    def _check_options(self) -> None:
        """ValueError for options that the class does not have, or that do here what is done elsewhere."""
        name, known = self.kind.__name__, inspect.signature(self.kind).parameters
        if self.options.get('download'):
            fetch = _fetch(name, self.options.get('root'))
            raise ValueError(
                f'Torchvision: a run downloads nothing. Fetch the set once, without `download` here: {fetch}'
            )
        if inner := sorted({'transform', 'transforms', 'target_transform', 'loader'} & set(self.options)):
            raise ValueError(
                f'Torchvision: {inner[0]} is not taken: views and transforms of a config see whole uint8 images.'
            )
        open_ended = any(p.kind == inspect.Parameter.VAR_KEYWORD for p in known.values())
        needed = {k for k, p in known.items() if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD}
        unknown = set() if open_ended else set(self.options) - set(known)
        if unknown or needed - set(self.options):
            wrong = (
                f'has no option {sorted(unknown)[0]!r}'
                if unknown
                else f'needs {sorted(needed - set(self.options))[0]!r}'
            )
            raise ValueError(
                f'Torchvision: torchvision.datasets.{name} {wrong}; its signature is {inspect.signature(self.kind)}.'
            )

    def _open(self) -> Any:
        name = self.kind.__name__
        try:
            return self.kind(**self.options)
        except (RuntimeError, FileNotFoundError) as error:
            raise FileNotFoundError(
                f"Torchvision: {name} finds its files in '{self.options.get('root')}' missing or incomplete: {error} Unpack them "
                f'there, or fetch them once: {_fetch(name, self.options.get("root"))}'
            ) from error

    def _labels_of(self, data: Any) -> list[int | str]:
        """Labels as the class keeps them, where its items agree; otherwise of all items, which reads every image once."""
        kept, looks = labels_of(data), sorted({0, len(data) // 2, len(data) - 1})
        if kept is not None and len(kept) == len(data) and all(self._label(data, i) == kept[i] for i in looks):
            return kept
        return [self._label(data, i) for i in range(len(data))]

    def _label(self, data: Any, i: int) -> int | str:
        try:
            item = data[i]
        except (OSError, SyntaxError) as error:
            raise self._damaged(i, error) from error
        label = item[1] if isinstance(item, (tuple, list)) and len(item) == 2 else item
        label = label.item() if isinstance(label, (Tensor, np.generic)) and not label.shape else label
        if isinstance(label, (int, str)) and not isinstance(label, bool):
            return label
        raise ValueError(
            f'Torchvision: {self.name(i)} comes with {str(label)[:60]!r} ({type(label).__name__}); expected an image and the '
            'number of its class. Choose such a target by the options of the class, or set labels=False to do without.'
        )

    def _damaged(self, i: int, error: Exception) -> Exception:
        if getattr(error, 'errno', None) is not None:  # not the image but the system
            return error
        return CorruptImageError(f'{self.name(i)} cannot be decoded ({error}). Fetch the set again.')

    def name(self, i: int) -> str:
        return f'image {i} of {self.kind.__name__} in {self.options.get("root")}'

    def read(self, i: int) -> np.ndarray:
        try:
            item = self.arrays[i]
        except (OSError, SyntaxError) as error:
            raise self._damaged(i, error) from error
        image = item[0] if isinstance(item, (tuple, list)) else item
        return to_array(image, self.mode) if isinstance(image, Image.Image) else image


def labels_of(data: Any) -> list | None:
    """The labels that one of torchvision's sets keeps, without decoding an image; None where they are not found."""
    for name in _NAMED:
        if (found := getattr(data, name, None)) is not None and np.ndim(found) == 1:
            return found.tolist() if hasattr(found, 'tolist') else list(found)
    for name in _PAIRED:
        if pairs := getattr(data, name, None):
            return [b if isinstance(b, (int, np.integer)) else a for a, b in pairs]  # iNaturalist has the label first
    return None


def _fetch(name: str, root: str | None) -> str:
    return f'python -c "from torchvision.datasets import {name}; {name}({root!r}, download=True)".'


def _class_named(name: str) -> type:
    every = {key: getattr(published, key) for key in published.__all__}
    sets = {
        key: each for key, each in every.items() if inspect.isclass(each) and issubclass(each, published.VisionDataset)
    }
    if name.startswith('LSUN'):
        raise ValueError(
            f'Torchvision: {name} unpickles a file of its folder, which can run code: copy its images out once.'
        )
    if name not in sets:
        near = did_you_mean(name, sets, n=3, otherwise=f'There are: {", ".join(sets)}.')
        raise ValueError(f'Torchvision: there is no data set torchvision.datasets.{name}. {near}')
    return sets[name]


def _class_names(data: Any) -> list[str]:
    """In the order of the labels; [] where the set has none, or one name for two classes."""
    kept = (getattr(data, key, None) for key in ('classes', 'categories', 'all_categories', 'class_to_idx'))
    found = next((each for each in kept if each), [])
    found = sorted(found, key=found.get) if isinstance(found, dict) else found
    names = [', '.join(each) if isinstance(each, tuple) else str(each) for each in found]
    return names if len(set(names)) == len(names) else []
