"""What commands say: the console that they share, JSON on stdout, warnings once."""

import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

console = Console(highlight=False)
say = partial(console.print, soft_wrap=True)  # no line breaks inside a paragraph: terminals wrap it, files keep it


def print_json(found: Any) -> None:
    """``--json``: one document on stdout. ``main`` has sent the console to stderr."""
    print(json.dumps(found, indent=1, allow_nan=False, default=str))


@contextmanager
def warnings_once() -> Iterator[None]:
    """Each warning as one line on stderr, said once."""
    said: set[str] = set()

    def show(message: Any, *_: Any, **__: Any) -> None:
        if str(message) not in said:
            Console(file=sys.stderr, highlight=False).print(
                f'[yellow]warning:[/] {escape(str(message))}', soft_wrap=True
            )
        said.add(str(message))

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
