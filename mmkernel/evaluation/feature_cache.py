"""Features kept on disk, so that every benchmark of one encoder on one set of images computes them once.

One folder per entry, named by a hash of what the features depend on (``feature_keys``: weights, stage, every image file,
transform, precision, versions): ``features.npy`` (read memory-mapped), ``labels.npy`` and ``about.json`` with their checksums,
which are compared at every use. Entries appear whole or not at all, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, barrier, get_dist_info
from torch import Tensor, nn

from mmkernel.distributed import on_first_process
from mmkernel.evaluation.feature_files import (
    CacheError,
    damage,
    join_parts,
    new_array,
    new_folder,
    publish,
    read_entry,
    seal,
    usable,
)
from mmkernel.evaluation.feature_keys import encoder_digest
from mmkernel.evaluation.labels import Labels

LAYOUT = 2  # part of every key: raise it when the same inputs would give other features
Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]  # (name, shape, dtype) -> an array to write into


class FeatureMismatchError(RuntimeError):
    """Stored features that other weights than the given ones have made."""


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
    folder = on_first_process(lambda: None if usable(entry, about) else new_folder(Path(cache)))
    if folder is not None:
        try:
            share = range(about['images'] * rank // world_size, about['images'] * (rank + 1) // world_size)
            compute(share, lambda name, shape, dtype: new_array(folder / f'{name}.{rank}.npy', shape, dtype))
            barrier()
            if rank == 0:
                join_parts(folder, world_size)
                seal(folder, about)
                publish(folder, entry)
            barrier()
        finally:
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
    return read_entry(entry)


def read_features(entry: str | Path, model: nn.Module | None = None) -> tuple[Tensor, Tensor, dict]:
    """(features, ``Labels``, about) of one folder of a cache; FeatureMismatchError unless ``model`` has made them.

    CacheError where a file is not what was written.
    """
    entry = Path(entry)
    if not (entry / 'about.json').is_file():
        raise FileNotFoundError(f"'{entry}' holds no features: expected about.json, features.npy and labels.npy in it.")
    wrong = damage(entry)
    if wrong:
        raise CacheError(f"'{entry}' is damaged: {wrong}. Delete the folder; the next benchmark computes them again.")
    about = json.loads((entry / 'about.json').read_text())
    given = None if model is None else encoder_digest(model, about['stage'])
    if given not in (None, about['encoder']):
        raise FeatureMismatchError(
            f"The features in '{entry}' come from other weights ({about['encoder'][:12]}) than the encoder given "
            f'({given[:12]}). Name the checkpoint they were made with, or let them be computed again.'
        )
    features, labels = read_entry(entry)
    return features, Labels(labels, about.get('classes')), about


def _check_same(key: str) -> None:
    """RuntimeError on every rank alike if the ranks would compute different features."""
    keys = all_gather_object(key)
    if len(set(keys)) > 1:
        raise RuntimeError(
            f'The processes hold different encoders or images (keys {", ".join(k[:8] for k in keys)}): their features '
            'cannot be one set. Load the same checkpoint and seed the untrained encoder alike on every process.'
        )
