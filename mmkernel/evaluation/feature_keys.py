"""What kept features depend on: hashes of an encoder, of images, of a transform and of what computes with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from importlib import metadata
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmkernel import __version__

PACKAGES = ('torch', 'torchvision', 'timm', 'pillow', 'numpy')


def encoder_digest(model: nn.Module, stage: str = 'backbone') -> str:
    """A hash of all that ``model.extract(images, stage)`` depends on: architecture, weights, buffers, normalisation.

    A model with a ``backbone`` (and a ``neck``) has no other part that features come from; of any other, the whole.
    """
    parts = [part for part in (['backbone', 'neck'] if stage == 'neck' else ['backbone']) if hasattr(model, part)]
    modules = [getattr(model, part) for part in parts] or [model]
    preprocessor = getattr(model, 'data_preprocessor', None)
    digest = hashlib.sha256()
    for module in modules:
        digest.update(repr(module).encode())
        for name, value in sorted({**dict(module.named_buffers()), **module.state_dict()}.items()):
            digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
            digest.update(_bytes(value))
    for name in ('mean', 'std'):  # buffers that no state dict holds
        digest.update(repr(torch.as_tensor(getattr(preprocessor, name, 0)).flatten().tolist()).encode())
    return digest.hexdigest()


def images_digest(dataset: Any, source: Any, transform: Any, looks: int = 16) -> str:
    """A hash of names, labels, the two configs (or objects), and ``looks`` images as the encoder sees them.

    The looks tell a transform whose code has changed; what the files hold is told by :func:`files_digest`.
    """
    inner, digest = dataset.source, hashlib.sha256()
    digest.update(
        json.dumps(source, default=str).encode() if isinstance(source, Mapping) else repr(type(source)).encode()
    )
    _describe(transform, digest, set())
    digest.update(np.ascontiguousarray(inner.labels, np.int64))
    if hasattr(inner, 'name'):
        for i in range(len(inner)):
            digest.update(f'{inner.name(i)}\n'.encode())
    for i in np.linspace(0, len(dataset) - 1, min(looks, len(dataset))).astype(int).tolist():
        image = dataset[i]['inputs'][0]
        digest.update(f'{tuple(image.shape)}'.encode())
        digest.update(_bytes(image))
    return digest.hexdigest()


def files_digest(source: Any) -> str:
    """A hash of name, size and times of every file that holds images of ``source``; of all images where no file does.

    A file that is written, replaced or repaired in place gets another time of change (ctime), whatever its name, size and
    time of modification; so does one that is copied or whose rights change, and then features are computed once more than
    necessary. No file is read: a million take seconds on a local disk. A source whose ``image_files()`` are unknown is read whole.
    """
    digest, files = hashlib.sha256(), source.image_files() if hasattr(source, 'image_files') else None
    for path in () if files is None else files:
        try:
            found = os.stat(path)
            state = f'{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}'
        except OSError as error:
            state = type(error).__name__
        digest.update(os.fsencode(path) + f' {state}\n'.encode())
    for i in range(len(source)) if files is None else ():
        image = np.ascontiguousarray(source.sample(i)[0])
        digest.update(f'{image.shape} {image.dtype}'.encode())
        digest.update(image)
    return digest.hexdigest()


def circumstances() -> dict[str, str]:
    """Versions of what decodes, resizes and multiplies, and the precision of products: part of every key."""
    cast = [f'{kind} {torch.get_autocast_dtype(kind)}' for kind in ('cpu', 'cuda') if torch.is_autocast_enabled(kind)]
    tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    versions = {'mmkernel': __version__, **{name: metadata.version(name) for name in PACKAGES}}
    return {**versions, 'precision': f'{" ".join(map(str, tf32))} {", ".join(cast)}'}


def _bytes(x: Tensor) -> np.ndarray:
    return x.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()


def _describe(value: Any, digest: Any, seen: set[int]) -> None:
    """Feed ``digest`` with all that ``value`` consists of: settings, arrays, and the code of functions. No address."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        digest.update(f'{value!r};'.encode())
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    parts: Iterable[Any] = ()
    digest.update(f'{type(value).__module__}.{type(value).__qualname__}('.encode())
    if isinstance(value, Tensor):
        digest.update(f'{value.dtype} {tuple(value.shape)}'.encode() + _bytes(value).tobytes())
    elif isinstance(value, (np.ndarray, np.generic)):
        digest.update(f'{value.dtype} {value.shape}'.encode() + value.tobytes())
    elif isinstance(value, Mapping):
        parts = [each for item in sorted(value.items(), key=str) for each in item]
    elif isinstance(value, (set, frozenset)):
        parts = sorted(value, key=repr)
    elif isinstance(value, (list, tuple)):
        parts = value
    elif isinstance(value, CodeType):
        parts = [value.co_code, value.co_consts, value.co_names]
    elif isinstance(value, type):
        parts = [value.__module__, value.__qualname__]
    elif hasattr(value, '__code__'):  # a function: what it does, and the values that it holds on to
        held = [cell.cell_contents for cell in value.__closure__ or ()]
        parts = [value.__qualname__, value.__code__, value.__defaults__, held, getattr(value, '__self__', None)]
    elif hasattr(value, 'func') and hasattr(value, 'keywords'):  # functools.partial
        parts = [value.func, value.args, value.keywords]
    elif hasattr(value, '__dict__'):
        parts = [type(value).__call__ if callable(value) else None, vars(value)]
    for part in parts:
        _describe(part, digest, seen)
    digest.update(b')')
