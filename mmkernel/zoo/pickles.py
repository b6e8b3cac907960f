"""Read tensors, plain values, and numbers and arrays of numpy from pickles; an empty stand-in takes the place of anything else."""

import pickle
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkernel.limits import DAMAGED, LimitError, check_unpacked
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.stand_ins import SHARD, StandIn

MOST_VALUES, MOST_DEPTH = 10_000_000, 64  # of a checkpoint; ours have some thousands, ten levels deep


class _Kind:
    """Stands in for numpy.dtype, which can crash the process if a hostile file sets its state."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        self.code = state[1] + self.code

    def of(self, content: bytes) -> np.ndarray:
        if not re.fullmatch(r'[<>|=]?[biuf]\d', self.code):
            raise ValueError(f'expected numbers, got {self.code!r}')
        return np.frombuffer(content, self.code)


class _Array:
    def __init__(self, *_: Any) -> None:
        self.value = None

    def __setstate__(self, state: tuple) -> None:
        _, shape, kind, by_columns, content = state
        self.value = kind.of(content).reshape(shape, order='F' if by_columns else 'C')


class _ArrayBeside(_Array, StandIn):
    """Beside tensors texts and objects may stand, too, which are left out."""

    def __setstate__(self, state: tuple) -> None:
        with suppress(*DAMAGED):
            super().__setstate__(state)


def _number(kind: _Kind, content: bytes) -> np.generic:
    return kind.of(content)[0]


def _whole(content: bytes, kind: _Kind, shape: tuple, order: str) -> np.ndarray:
    return kind.of(content).reshape(shape, order=order)


def _encoded(text: str, encoding: str) -> bytes:
    """How old pickles write bytes; other encodings make long texts of short ones."""
    if encoding not in ('latin1', 'latin-1'):
        raise ValueError(f'bytes written as {str(encoding)[:20]!r}')
    return text.encode('latin1')


# Replacements for the functions and classes that a pickle of numpy numbers and arrays names.
NUMBERS = {'numpy.dtype': _Kind, **{f'numpy.{core}.multiarray.scalar': _number for core in ('core', '_core')}}
ARRAYS = {**NUMBERS, 'numpy.ndarray': _Array, '_codecs.encode': _encoded}
ARRAYS |= {f'numpy.{core}.multiarray._reconstruct': _Array for core in ('core', '_core')}
ARRAYS |= {f'numpy.{core}.numeric._frombuffer': _whole for core in ('core', '_core')}
OF_TENSORS = {name: _ArrayBeside for name, kind in ARRAYS.items() if kind is _Array}  # the same beside tensors


class _ArraysOnly(pickle.Unpickler):
    """Loads numpy arrays and plain values; anything else in a pickle could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if f'{module}.{name}' not in ARRAYS:
            raise pickle.UnpicklingError(f'{module}.{name}')
        return ARRAYS[f'{module}.{name}']


def read_arrays(path: Path) -> dict[str, Any]:
    """``dict(model={name: tensor})`` of a pickle of arrays (detectron2's); CheckpointError if it contains anything else."""
    with open(path, 'rb') as file:
        try:
            content = _ArraysOnly(file).load()
        except DAMAGED as error:
            raise CheckpointError(
                f"'{path}' is not a pickle of arrays, or is damaged: {error}. Other classes are not loaded: they can run code."
            ) from error
    arrays = content.get('model', content) if isinstance(content, dict) else {}
    if not isinstance(arrays, dict):
        raise CheckpointError(f"'{path}' has a {type(arrays).__name__} as 'model'; expected a dict of arrays.")
    arrays = {key: getattr(value, 'value', value) for key, value in arrays.items()}
    return dict(model={key: _tensor(array) for key, array in arrays.items() if isinstance(array, np.ndarray)})


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder('=')))


def with_tensors(content: Any) -> Any:
    """The same content; arrays of numbers in its dicts and lists have become tensors."""
    seen, left = set(), [content]
    while left:
        value = left.pop()
        if not isinstance(value, (dict, list)) or id(value) in seen:
            continue
        seen.add(id(value))
        for key, item in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
            if isinstance(item, _ArrayBeside) and item.value is not None:
                value[key] = _tensor(item.value)
            left.append(item)
    return content


def check_content(checkpoint: Any, path: Path) -> None:
    """CheckpointError unless this is a dict of plain values and of tensors that take no more memory than the file has.

    A tensor in a file can repeat a few bytes, and a list can be in itself: both have no end when they are copied or shown.
    """
    if isinstance(checkpoint, StandIn):
        raise CheckpointError(f"'{path}' holds {checkpoint.said()}")
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f"'{path}' holds a {type(checkpoint).__name__}; expected a dict of weights.")
    counted: dict[int, int] = {}  # id -> values in it; 0 while it is looked through
    tensors: dict[int, int] = {}  # id -> bytes when copied

    def count(value: Any, depth: int) -> int:
        if isinstance(value, torch.Tensor):
            if type(value) not in (torch.Tensor, torch.nn.Parameter):
                raise CheckpointError(f"'{path}' holds {SHARD.format(type(value).__name__)}")
            if value.layout != torch.strided or value.device.type != 'cpu' or value.is_quantized:
                raise CheckpointError(
                    f"'{path}' holds a tensor that is sparse, quantized or empty; expected plain ones."
                )
            tensors[id(value)] = value.numel() * value.element_size()
        if not isinstance(value, (Mapping, list, tuple, set, frozenset)):
            return 1
        if id(value) not in counted:
            counted[id(value)] = 0
            items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value
            counted[id(value)] = 1 + sum(count(item, depth + 1) for item in items) if depth < MOST_DEPTH else 0
        if not counted[id(value)]:
            raise CheckpointError(f"'{path}' holds a value that is more than {MOST_DEPTH} levels deep, or in itself.")
        return counted[id(value)]

    if (values := count(checkpoint, 0)) > MOST_VALUES:
        raise CheckpointError(f"'{path}' holds {values} values; expected tensors, and at most {MOST_VALUES} values.")
    try:
        check_unpacked(f"'{path}'", path.stat().st_size, sum(tensors.values()))
    except LimitError as error:
        raise CheckpointError(str(error)) from error
