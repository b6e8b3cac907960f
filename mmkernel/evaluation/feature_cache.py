"""Features kept on disk, so that every benchmark of one encoder on one set of images computes them once.

One folder per entry, named by a hash of what the features depend on: ``features.npy`` (read memory-mapped),
``labels.npy`` and ``about.json``. Entries appear whole or not at all, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, barrier, broadcast_object_list, get_dist_info
from torch import Tensor, nn

from mmkernel.evaluation.feature_files import is_whole, join_parts, new_array, new_folder, publish, read_entry

LAYOUT = 1  # part of every key: raise it when the same inputs would give other features
Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]  # (name, shape, dtype) -> an array to write into


class FeatureMismatchError(RuntimeError):
    """Stored features that other weights than the given ones have made."""


def encoder_digest(model: nn.Module, stage: str = 'backbone') -> str:
    """A hash of all that ``model.extract(images, stage)`` depends on: architecture, weights, buffers, normalisation."""
    parts = [part for part in (['backbone', 'neck'] if stage == 'neck' else ['backbone']) if hasattr(model, part)]
    modules = [getattr(model, part) for part in parts] or [model]
    preprocessor = getattr(model, 'data_preprocessor', None)
    digest = hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())
        for name, value in sorted(module.state_dict().items()):
            digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    for name in ('mean', 'std'):  # buffers that no state dict holds
        digest.update(repr(torch.as_tensor(getattr(preprocessor, name, 0)).flatten().tolist()).encode())
    return digest.hexdigest()


def images_digest(dataset: Any, source: Any, transform: Any, looks: int = 16) -> str:
    """A hash of names, labels, the two configs, and ``looks`` images as the encoder sees them.

    The images tell a folder whose files were replaced; reading all of them would cost as much as the features.
    """
    inner, digest = dataset.source, hashlib.sha256()
    for part in (source, transform):
        text = json.dumps(part, default=str) if isinstance(part, Mapping) else f'{type(part).__name__}'
        digest.update((text if isinstance(part, Mapping) or part is None else text + repr(_plain(part))).encode())
    digest.update(np.ascontiguousarray(inner.labels, np.int64))
    if hasattr(inner, 'name'):
        for i in range(len(inner)):
            digest.update(f'{inner.name(i)}\n'.encode())
    for i in np.linspace(0, len(dataset) - 1, min(looks, len(dataset))).astype(int).tolist():
        image = dataset[i]['inputs']
        digest.update(f'{tuple(image.shape)}'.encode())
        digest.update(image.contiguous().numpy())
    return digest.hexdigest()


def _plain(part: Any) -> dict:
    """The settings of an object that was given in place of its config."""
    values = vars(part) if hasattr(part, '__dict__') else {}
    return {key: v for key, v in sorted(values.items()) if isinstance(v, (bool, int, float, str, tuple, type(None)))}


def stored(
    cache: str | Path, about: Mapping[str, Any], compute: Callable[[range, Allocate], None]
) -> tuple[Tensor, Tensor]:
    """(features, labels) of the entry that ``about`` names, computed first if there is none.

    ``compute(rows, allocate)`` fills the arrays 'features' and 'labels' that it gets from ``allocate`` with these rows.
    With W processes each computes N / W rows, and rank 0 joins the parts; the folder must be one that all ranks see.
    """
    about = {'layout': LAYOUT, **about}
    entry = Path(cache) / hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]
    rank, world_size = get_dist_info()
    _check_same(entry.name)
    # rank 0 decides, so that all ranks take the same way even when another job makes the entry meanwhile
    work = [str(new_folder(Path(cache))) if rank == 0 and not is_whole(entry, about['images']) else None]
    broadcast_object_list(work)
    if work[0] is not None:
        folder = Path(work[0])
        try:
            share = range(about['images'] * rank // world_size, about['images'] * (rank + 1) // world_size)
            compute(share, lambda name, shape, dtype: new_array(folder / f'{name}.{rank}.npy', shape, dtype))
            barrier()
            if rank == 0:
                join_parts(folder, world_size)
                (folder / 'about.json').write_text(json.dumps(about, indent=1) + '\n')
                publish(folder, entry)
            barrier()
        finally:
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
    return read_entry(entry)


def read_features(entry: str | Path, model: nn.Module | None = None) -> tuple[Tensor, Tensor, dict]:
    """(features, labels, about) of one folder of a cache; FeatureMismatchError unless ``model`` has made them."""
    entry = Path(entry)
    if not (entry / 'about.json').is_file():
        raise FileNotFoundError(f"'{entry}' holds no features: expected about.json, features.npy and labels.npy in it.")
    about = json.loads((entry / 'about.json').read_text())
    given = None if model is None else encoder_digest(model, about['stage'])
    if given not in (None, about['encoder']):
        raise FeatureMismatchError(
            f"The features in '{entry}' come from other weights ({about['encoder'][:12]}) than the encoder given "
            f'({given[:12]}). Name the checkpoint they were made with, or let them be computed again.'
        )
    return *read_entry(entry), about


def _check_same(key: str) -> None:
    """RuntimeError on every rank alike if the ranks would compute different features."""
    keys = all_gather_object(key)
    if len(set(keys)) > 1:
        raise RuntimeError(
            f'The processes hold different encoders or images (keys {", ".join(k[:8] for k in keys)}): their features '
            'cannot be one set. Load the same checkpoint and seed the untrained encoder alike on every process.'
        )
