"""Read numpy numbers and arrays from pickles; nothing else in a pickle is loaded or run."""

import codecs
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkernel.zoo.pins import CheckpointError


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


def _number(kind: _Kind, content: bytes) -> np.generic:
    return kind.of(content)[0]


def _whole(content: bytes, kind: _Kind, shape: tuple, order: str) -> np.ndarray:
    return kind.of(content).reshape(shape, order=order)


# Replacements for the functions and classes that a pickle of numpy numbers and arrays names.
NUMBERS = {'numpy.dtype': _Kind, **{f'numpy.{core}.multiarray.scalar': _number for core in ('core', '_core')}}
ARRAYS = {**NUMBERS, 'numpy.ndarray': _Array, '_codecs.encode': codecs.encode}
ARRAYS |= {f'numpy.{core}.multiarray._reconstruct': _Array for core in ('core', '_core')}
ARRAYS |= {f'numpy.{core}.numeric._frombuffer': _whole for core in ('core', '_core')}


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
        except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, LookupError, TypeError) as error:
            raise CheckpointError(
                f"'{path}' is not a pickle of arrays, or is damaged: {error}. Other classes are not loaded: they can run code."
            ) from error
    arrays = content.get('model', content) if isinstance(content, dict) else {}
    arrays = {key: getattr(value, 'value', value) for key, value in arrays.items()}
    native = {key: np.array(a, a.dtype.newbyteorder('=')) for key, a in arrays.items() if isinstance(a, np.ndarray)}
    return dict(model={key: torch.from_numpy(array) for key, array in native.items()})
