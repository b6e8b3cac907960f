"""What commands read and say: parameters, the console that they share, JSON on stdout, warnings once, a quick end."""

import gc
import inspect
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import cyclopts
from rich.console import Console
from rich.markup import escape

console = Console(highlight=False)
say = partial(console.print, soft_wrap=True)  # no line breaks inside a paragraph: terminals wrap it, files keep it

LIBRARIES = ('torch', 'torchvision', 'timm', 'mmengine', 'mmcv', 'matplotlib', 'numpy', 'sklearn', 'faiss')
_METAVAR = 'metavar' in inspect.signature(cyclopts.Parameter).parameters


def Parameter(*names: Any, metavar: str | None = None, **settings: Any) -> cyclopts.Parameter:
    """``cyclopts.Parameter``. The last cyclopts for Python 3.10 has no ``metavar``: help names the type there."""
    return cyclopts.Parameter(*names, **settings, **(dict(metavar=metavar) if _METAVAR and metavar else {}))


def end_quickly() -> None:
    """Spare Python's last collections, which would visit all of torch for seconds, and free what ends anyway.

    From triton 3.9 on they are needed: its bindings print a page about objects that are left.
    """
    triton = getattr(sys.modules.get('triton'), '__version__', '0.0')
    if tuple(map(int, triton.split('.')[:2])) < (3, 9):
        gc.freeze()


def print_json(found: Any) -> None:
    """``--json``: one document on stdout. ``main`` has sent the console to stderr."""
    print(json.dumps(found, indent=1, allow_nan=False, default=str))


@contextmanager
def warnings_once() -> Iterator[None]:
    """Each warning as one line on stderr, said once. What libraries say of their own future is not news to a user."""
    said: set[str] = set()

    def show(message: Any, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            Console(file=sys.stderr, highlight=False).print(
                f'[yellow]warning:[/] {escape(str(message))}', soft_wrap=True
            )
        said.add(str(message))

    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings('ignore', category=kind, module=rf'({"|".join(LIBRARIES)})\b')
        warnings.showwarning = show
        yield
