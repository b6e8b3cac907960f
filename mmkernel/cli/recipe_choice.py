"""What is chosen for images of one's own by looking at them: their source, a batch that fits, a network that takes their size."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from mmkernel.checks import did_you_mean
from mmkernel.cli.given_data import Data, check_labelled, divided, source_config
from mmkernel.cli.recipe_text import SMALL_STEM
from mmkernel.datasets import Source
from mmkernel.datasets.training import as_source
from mmkernel.models import TIMMBackbone

LOOKED_AT = 16  # images, to see whether all are grey, and how large they are
FEWEST, BATCH, UNIT = 8, 256, 8
Parts = dict[str, dict[str, Any]]


def look(data: str) -> tuple[dict[str, Any], Parts, int, list[int], bool]:
    """Source of the training, parts of the evaluation, number of images, their longer sides, whether all are grey."""
    if not data.startswith(('dict(', '{')):
        path = Path(data).expanduser()
        if not path.exists():
            near = did_you_mean(data, [str(other) for other in path.parent.glob('*')], cutoff=0.6)
            raise FileNotFoundError(f"There is no folder or file '{data}' with images. {near}".rstrip())
        data = str(path.resolve())
    shapes = list(_shapes(as_source(source_config(data, 'all'))))
    grey = bool(shapes) and all(shape[2] == 1 for shape in shapes)
    mode = 'L' if grey else 'RGB'
    source, parts = source_config(data, mode), {}
    with suppress(ValueError):  # without labels, or with too few images of a class
        parts = divided(Data(data=data), mode, 0)
        check_labelled(Data(data=data), parts)
    if not parts or any((np.asarray(as_source(part).labels) < 0).any() for part in parts.values()):
        parts = dict(test=source)
    elif parts['train'].get('type') != 'Subset':  # the images come with a part of their own for the test
        source = parts['train']
    source, parts = _short(source), _short(parts)
    return source, parts, len(as_source(source)), [max(shape[:2]) for shape in shapes] or [10**6], grey


def _short(part: dict[str, Any]) -> dict[str, Any]:
    """Without what is so by default."""
    left = {key: value for key, value in part.items() if (key, value) != ('mode', 'RGB')}
    return {key: _short(value) if isinstance(value, dict) else value for key, value in left.items()}


def _shapes(source: Source) -> Iterator[tuple[int, ...]]:
    for i in sorted({len(source) * k // LOOKED_AT for k in range(LOOKED_AT)}):
        with suppress(ValueError, OSError):  # a damaged one; the run says which
            yield source.pixels(i).shape


def batches(images: int, given: int | None, processes: int) -> list[int]:
    """Batches of a process to try: the one that is given, or powers of 2, from a quarter of the images (at most 256) on."""
    most = images // processes
    if most < FEWEST:
        few = f'{images} image(s) are too few to train on'
        raise ValueError(f'{few}: expected {FEWEST} for each process at least, and better some hundreds.')
    if given is not None and given > most:
        raise ValueError(
            f'--batch-size {given}: there are {images} images, of which a process has {most}. Take at most {most}.'
        )
    first = max(min(BATCH, 1 << (max(most // 4, 1)).bit_length() - 1), FEWEST)
    return [given] if given else [batch for batch in (first << n for n in range(9)) if batch <= most]


def network_of(name: str, size: int, grey: bool, own: dict) -> tuple[dict[str, Any], int]:
    """(config of a backbone, with what that of the recipe, ``own``, has and it takes; px that divide the sides of its images).

    ValueError for an unknown name, and for a size that is not a whole number of patches.
    """
    given = dict(model_name=name, **(dict(in_channels=1) if grey else {}))
    if name in timm.list_models(module='resnet'):
        kept = {'zero_init_residual': True} if own.get('zero_init_residual') else {}
        tries = [{**kept, 'small_images': True}] * (size <= SMALL_STEM) + [kept]
    else:
        kept = {key: own[key] for key in ('drop_path_rate',) if key in own}
        tries = [{'img_size': size, **kept}, {'img_size': size}]
    model = None
    for more in tries if name in timm.list_models() else ():
        with suppress(TypeError, ValueError), torch.device('meta'):  # of a network without such an option
            model, given = TIMMBackbone(**given, **more), {**given, **more}
            break
    if model is None:
        with torch.device('meta'):
            model = TIMMBackbone(**given)  # the error of an unknown name suggests near ones
    patch = getattr(getattr(model, 'patch_embed', None), 'patch_size', None)
    patch = patch if isinstance(patch, int) else max(patch or (1,))
    if size % patch:
        near = ' or '.join(str(n) for n in (size // patch * patch, -(-size // patch) * patch) if n)
        raise ValueError(
            f'--size {size}: {name} cuts images into patches of {patch} px. Take a multiple of it, {near}.'
        )
    return dict(type='TIMMBackbone', **given), max(patch, UNIT)
