"""Hashes: of files, against the one that a name tells (``name-ab12cd34.pth``, the convention of torch.hub and OpenMMLab), and what
an object consists of, alike in every process.
"""

import copyreg
import hashlib
import io
import marshal
import pickle
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 20
IN_NAME = re.compile(r'-([0-9a-f]{8,64})(\.(pth|pt|th|tar|gz|pkl|bin|safetensors|ckpt))+$', re.IGNORECASE)
COUNTED = re.compile(
    r'000\d*|(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])\d*'
)  # a step or a date: digits, but no hash


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """sha256 and md5 of files, one after the other as if they were one."""
    found = dict(sha256=hashlib.sha256(), md5=hashlib.md5(usedforsecurity=False))
    for path in paths:
        with open(path, 'rb') as file:
            while block := file.read(BLOCK):
                for digest in found.values():
                    digest.update(block)
    return {name: digest.hexdigest() for name, digest in found.items()}


def hash_in_name(path: Path) -> str | None:
    """'ab12cd34' of ``name-ab12cd34.pth``; None for a name without one."""
    found = IN_NAME.search(path.name)
    return None if found is None or COUNTED.fullmatch(found[1]) else found[1].lower()


def wrong_name(path: Path) -> str | None:
    """What is wrong with a file that has other bytes than its name tells by its sha256 or md5; None if nothing is."""
    wanted = hash_in_name(path)
    found = {} if wanted is None else hashes([path])
    if wanted is None or any(digest.startswith(wanted) for digest in found.values()):
        return None
    return (
        f"'{path}' has the sha256 {found['sha256'][: len(wanted)]}, its name says {wanted}: it was damaged or changed. Fetch it "
        'again from its source. If these digits are no hash of what it holds, rename the file.'
    )


def tensor_bytes(x: Tensor) -> np.ndarray:
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()


def content(value: Any) -> bytes:
    """What ``value`` consists of, alike in every process: of a function its code and what it holds on to, of a class its call."""
    _Content(file := io.BytesIO()).dump(value)
    return file.getvalue()


class _Content(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.begun: set[FunctionType] = set()  # one that calls itself, or super(), holds on to itself, or to its class

    def persistent_id(self, value: Any) -> Any:  # asked first, of every part
        return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else None

    def reducer_override(self, value: Any) -> Any:
        own = value if isinstance(value, (type, FunctionType)) else type(value)
        parts = [f'{own.__module__}.{own.__qualname__}']
        if isinstance(value, Tensor):  # its own way tells an address
            parts += [str(value.dtype), tuple(value.shape), tensor_bytes(value)]
        elif own is not value:
            with suppress(TypeError, NotImplementedError):  # a lock, a module: the name of its class
                return NotImplemented if own in copyreg.dispatch_table else value.__reduce_ex__(4)
        elif own.__module__ == 'builtins':
            return NotImplemented
        elif isinstance(call := getattr(own, '__call__'), FunctionType) or isinstance(call := own, FunctionType):  # noqa: B004, B009
            held = [] if call in self.begun else [cell.cell_contents for cell in call.__closure__ or ()]
            self.begun.add(call)
            parts += [marshal.dumps(call.__code__, 2), call.__defaults__, held]
        return tuple, (tuple(parts),)
