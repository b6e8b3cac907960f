"""How a benchmark ends when something is wrong that the person can mend: in one line, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape

from mmkernel.engine import CheckpointError, ConfigError


def run(main: Callable[[], None]) -> None:
    """``main()``; a file that is missing, a config or a checkpoint that does not fit, data that are too few: exit code 1."""
    try:
        main()
    except (CheckpointError, ConfigError, FileNotFoundError, ValueError) as error:
        console = Console(stderr=True)
        console.print(f'[red]{type(error).__name__}:[/] {escape(str(error))}', highlight=False, soft_wrap=True)
        sys.exit(1)
