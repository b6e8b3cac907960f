"""Images that a command line names: the config of their source, and the evaluation part of a config made of them."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict

from mmkernel.cli.options import option_value
from mmkernel.cli.terminal import Parameter, say
from mmkernel.datasets import Source
from mmkernel.datasets.folders import EXTENSIONS
from mmkernel.datasets.label_checks import targets_of
from mmkernel.datasets.training import as_source
from mmkernel.evaluation.labels import renumber
from mmkernel.models.image_sizes import evaluation_size, view_sizes

KINDS = {'.npz': ('NpzPack', 'path'), '.tar': ('TarShards', 'shards'), '.parquet': ('Parquet', 'files')}
TESTS = ('test', 'val', 'valid', 'validation')  # folders beside one called train
SHARE = 0.2  # of each class, for the test
QUOTED = "dict(type='ImageList', names='train.csv', root='/my/images', labels=True)"
Images = Annotated[str | None, Parameter(metavar='PATH')]


@dataclass(kw_only=True)
class Data:
    """Options that name images instead of those of the config: a folder, a pack, shards, parquet, or a source in quotes."""

    data: Annotated[Images, Parameter(help='labelled images, FOLDER/<class>/<image>; a fifth is kept for the test')] = (
        None
    )
    train: Annotated[Images, Parameter(help='labelled images to learn from; with --test')] = None
    test: Annotated[Images, Parameter(help='labelled images to be judged on')] = None
    size: Annotated[int | None, Parameter(help='side of the images; default: that of the checkpoint')] = None

    @property
    def given(self) -> bool:
        return bool(self.data or self.train or self.test)


def source_config(text: str, mode: str = 'RGB', split: str = 'train') -> dict[str, Any]:
    """The config of the source of a folder, a pack, shards, or written in quotes; ValueError naming what is possible.

    A folder names classes where each image lies in the folder of one. ``split``: of a pack that has it, else 'train'.
    """
    if text.startswith(('dict(', '{')):
        given: Any = {}
        with suppress(ValueError):
            given = option_value(text)
        if not isinstance(given, dict) or 'type' not in given:
            raise ValueError(f"{text} is not a source; expected \"dict(type='ImageFolder', root='/my/images')\".")
        return given
    path = Path(text).expanduser()
    inside = {Path(name).suffix.lower() for name in os.listdir(path)} if path.is_dir() else {path.suffix.lower()}
    inside -= {'.npz'} if path.is_dir() else set()  # a pack is one file
    kind = next((ending for ending in KINDS if ending in inside), None)
    if kind and not inside & set(EXTENSIONS):
        name, key = KINDS[kind]
        tries = [dict(split=split), {}] if kind == '.npz' else [{}, dict(label=None)] if kind == '.parquet' else [{}]
        return _first_that_builds([{'type': name, key: text, 'mode': mode, **more} for more in tries])
    if path.is_file():
        raise ValueError(
            f"'{text}' is none of {', '.join(KINDS)}, or a config (.py). Name a folder, or write the source in quotes: "
            f'"{QUOTED}".'
        )
    folder = dict(type='ImageFolder', root=text, mode=mode)
    return _first_that_builds([dict(folder, labels=True), folder])  # some images are in no folder: no classes


def _first_that_builds(configs: list[dict[str, Any]]) -> dict[str, Any]:
    """The last one is left to the caller to build, with its error."""
    for config in configs[:-1]:
        with suppress(ValueError, KeyError):
            as_source(config)
            return config
    return configs[-1]


def divided(data: Data, mode: str, seed: int) -> dict[str, dict]:
    """{'train': source, 'test': source} as configs: as named, as ``--data`` divides itself, or a fifth of each class by seed."""
    if data.data and (data.train or data.test):
        raise ValueError('--data divides one set of images, --train and --test name two: leave one of them out.')
    if not data.data:
        if not (data.train and data.test):
            there, lacking = ('--train', '--test') if data.train else ('--test', '--train')
            raise ValueError(
                f'{there} needs {lacking}: images to learn from and others to be judged on. Or --data FOLDER.'
            )
        return dict(train=source_config(data.train, mode), test=source_config(data.test, mode, 'test'))
    path = Path(data.data).expanduser()
    folders = [entry.name for entry in os.scandir(path) if entry.is_dir()] if path.is_dir() else []
    held = next((name for name in TESTS if name in folders), None)
    if 'train' in folders and held and set(folders) <= {'train', *TESTS}:
        return {part: source_config(str(path / name), mode) for part, name in (('train', 'train'), ('test', held))}
    whole, own = source_config(data.data, mode), source_config(data.data, mode, 'test')
    if own.get('split') == 'test' != whole.get('split'):
        return dict(train=whole, test=own)
    _check_classes(data.data, source := as_source(whole))
    numbers, counts = np.unique(source.labels, return_counts=True)
    if (counts < 2).any():
        lone = ', '.join(_class(source, n) for n in numbers[counts < 2][:8])
        raise ValueError(f"'{data.data}' has one image of {lone}; --data keeps a fifth of each class for the test: expected "
                         'two of each at least. Or name both sets, --train A --test B.')  # fmt: skip
    part = dict(type='Subset', source=whole, fraction=SHARE, seed=seed)
    return dict(train=dict(part, complement=True), test=part)


def _class(source: Source, number: int) -> str:
    return f"'{source.classes[number]}'" if source.classes else f'class {number}'


def _check_classes(name: str, source: Source) -> None:
    """ValueError unless each image has one class."""
    bare = int((np.asarray(source.labels) < 0).sum())
    if bare and targets_of(source) is not None:
        raise ValueError(
            f"the images of '{name}' have several classes each; expected one class. mmkernel svm takes them."
        )
    if bare:
        raise ValueError(
            f"'{name}': {bare} of {len(source)} images have no class; expected a folder for each class, "
            f'{name}/<class>/<image>, a pack with labels, or a list in quotes: "{QUOTED}".'
        )


def check_labelled(data: Data, parts: dict[str, dict]) -> None:
    """ValueError unless both have one class for each image, at least two classes, of the same names."""
    train, test = (as_source(parts[name]) for name in ('train', 'test'))
    names = dict(train=data.train or data.data, test=data.test or data.data)
    _check_classes(names['train'], train)
    _check_classes(names['test'], test)
    shown = np.unique(train.labels)
    if len(shown) < 2:
        raise ValueError(
            f"'{names['train']}': all {len(train)} training images are of one class ({_class(train, shown[0])}); expected "
            'two or more, each in a folder of its own.'
        )
    renumber(torch.as_tensor(test.labels), tuple(test.classes), tuple(train.classes))


def mode_of(cfg: Config) -> str:
    """'L', 'RGB' or 'all': as the encoder of a config takes its images."""
    mean = (cfg.get('data_preprocessor') or {}).get('mean') or (0.0,) * 3
    channels = cfg.model.backbone.get('in_channels') or len(mean)
    return {1: 'L', 3: 'RGB'}.get(int(channels), 'all')


def view_of(cfg: Config, size: int | None = None) -> dict[str, Any]:
    """The CenterView that gives images of any size the one of ``cfg``, or a side of ``size`` px, resized in the same ratio."""
    view = dict((cfg.get('evaluation') or {}).get('transform') or {})
    crop, resize = view.get('crop'), view.get('resize')
    if crop is not None and size is None:
        return view
    own = evaluation_size(cfg) or next(iter(view_sizes(cfg)), (None, None))
    height, width = own if size is None else (size, size)
    if height is None:
        raise ValueError('The config does not tell the size of images: name it, e.g. --size 224, that of the training.')
    if not 1 <= min(height, width):
        raise ValueError(f'--size {size}; expected the side of the images in pixels, 1 or more.')
    ratio = resize / crop if isinstance(crop, int) and isinstance(resize, int) else 1
    side = height if height == width else (height, width)
    kept = {key: value for key, value in view.items() if key == 'interpolation'}
    return dict(
        type='CenterView', resize=round(min(height, width) * ratio), crop=side, **{'interpolation': 'bicubic', **kept}
    )


def give_images(cfg: Config, data: str | None, size: int | None = None) -> None:
    """Put the images of ``data`` into ``evaluation.test`` of ``cfg``, labelled or not, in the size of its encoder."""
    part = dict(cfg.get('evaluation') or {})
    if data:
        part |= dict(test=source_config(data, mode_of(cfg), 'test'))
    elif 'test' not in part:
        raise ValueError('the config has no images to look at (evaluation.test): name them, --data FOLDER.')
    if data or size is not None:
        part |= dict(transform=view_of(cfg, size))
    cfg.evaluation = ConfigDict(part)


def give_data(cfg: Config, data: Data, seed: int, labelled: bool = True) -> None:
    """Put the images that ``data`` names into ``evaluation`` of ``cfg``; says how many."""
    parts = divided(data, mode_of(cfg), seed)
    if labelled:
        check_labelled(data, parts)
    old = cfg.get('evaluation') or {}
    view = view_of(cfg, data.size)
    batch = old.get('batch_size', 64)
    cfg.evaluation = ConfigDict(**parts, transform=view, batch_size=batch, num_workers=old.get('num_workers', 2))
    counts = {name: len(as_source(part)) for name, part in parts.items()}
    drawn = f', drawn of each class with seed {seed}' if parts['test'].get('type') == 'Subset' else ''
    say(f'{counts["train"]:,} images to learn from, {counts["test"]:,} to be judged on{drawn}; {view["crop"]} px')
