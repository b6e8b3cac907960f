"""Errors of a benchmark that the person can mend end it in one line, without a traceback; warnings are said once."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from mmkernel.cli import MENDABLE, explain


def run(main: Callable[[], None]) -> None:
    """``main()``; a file that is missing, a config or a checkpoint that does not fit, data that are too few: exit code 1.

    MMKERNEL_TRACEBACK=1 shows where it came from. Ctrl-C: exit code 130; what is in the cache need not be computed again.
    """
    if os.environ.get('MMKERNEL_TRACEBACK') == '1':
        main()
        return
    console = Console(stderr=True)
    try:
        with warnings.catch_warnings():
            said: set[str] = set()
            warnings.showwarning = lambda message, *_, **__: _say_once(console, str(message), said)
            main()
    except MENDABLE as error:
        console.print(f'[red]{type(error).__name__}:[/] {escape(explain(error))}', highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print('interrupted')
        sys.exit(130)


def _say_once(console: Console, text: str, said: set[str]) -> None:
    if text not in said:
        console.print(f'[yellow]warning:[/] {escape(text)}', highlight=False, soft_wrap=True)
    said.add(text)
