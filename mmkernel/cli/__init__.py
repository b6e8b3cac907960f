"""``mmkernel COMMAND ...``: the one door. ``commands.py`` is the table; each command is a function of its own file.

Its signature and docstring are its help. Files are imported when their command is called, so help is quick.
Options that several commands have mean the same in each: ``mmkernel.cli.options``.
"""

import atexit
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cyclopts import App, CycloptsError, Group

import mmkernel
from mmkernel.checks import words_of
from mmkernel.cli.commands import COMMANDS as COMMANDS
from mmkernel.cli.commands import FOLDERS, GROUPS
from mmkernel.cli.terminal import Parameter, console, end_quickly, warnings_once

atexit.register(end_quickly)

MENDABLE = (ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError)
"""Errors that bad input can cause."""


def app() -> App:
    """All commands, none of them imported yet."""
    groups = {name: Group(name, sort_key=number) for number, name in enumerate(GROUPS)}
    root = App(
        'mmkernel', version=f'mmkernel {mmkernel.__version__}', version_flags=('--version', '-V'), help_format='plaintext',
        help=f'mmkernel {mmkernel.__version__}: image encoders without labels, kernels on the sphere.',
        group_commands=Group('Options', sort_key=9), suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative_iterable=(), negative_none=()),
    )  # fmt: skip
    root.help_epilogue = 'mmkernel COMMAND --help explains one, with examples that work as they stand.'
    root.register_install_completion_command(group=root.group_commands)
    folders = {
        name: App(name, help=_sentence(summary), group=groups[group], group_commands=Group('Commands'))
        for name, (group, summary) in FOLDERS.items()
    }
    for number, (name, command) in enumerate(COMMANDS.items()):
        first, _, second = name.rpartition(' ')
        parent = folders[first] if first else root
        examples = ''.join(f'\n  mmkernel {name} {example}'.rstrip() for example in command.examples)
        parent.command(
            command.function, name=second, help=_sentence(command.summary), help_epilogue=f'For example:\n{examples}',
            group=None if first else groups[command.group], sort_key=number,
        )  # fmt: skip
    for name, folder in folders.items():
        lines = [f'\n  mmkernel {key} {c.examples[0]}' for key, c in COMMANDS.items() if key.split()[0] == name]
        folder.help_epilogue = f'For example:\n{"".join(lines)}'
        root.command(folder)
    return root


def _sentence(summary: str) -> str:
    return f'{summary[0].upper()}{summary[1:]}' + ('' if summary[-1] in '?.' else '.')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry of the console script ``mmkernel``. A mistake of the user ends it with one line and exit code 1 (2: of an option).

    MMKERNEL_TRACEBACK=1 shows where an error came from. Ctrl-C: exit code 130.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] in ([], ['help']):
        argv = [*argv[1:], '--help']
    name = next((name for n in (2, 1) for name in [' '.join(argv[:n])] if name in COMMANDS), '')
    prog = f'mmkernel {name}'.strip()
    console.stderr = '--json' in argv  # what is said to a person goes beside the one document on stdout
    with one_line(prog, name in COMMANDS and COMMANDS[name].whole):
        app()(argv, exit_on_error=False, print_error=False, result_action='return_value')


@contextmanager
def one_line(prog: str, whole: bool = False) -> Iterator[None]:
    """Warnings once; a mistake of the user ends the process with one line that begins with ``prog``.

    ``whole``: what is inside reports its errors itself.
    """
    try:
        with warnings_once():
            yield
    except CycloptsError as error:
        print(f'{prog}: {error} {prog} --help explains it.', file=sys.stderr)
        sys.exit(2)
    except MENDABLE as error:
        if os.environ.get('MMKERNEL_TRACEBACK') == '1' or whole:
            raise
        sys.exit(f'{prog}: {explain(error)}')
    except KeyboardInterrupt:
        sys.exit(130)


def explain(error: Exception) -> str:
    """The message of one of ``MENDABLE``; one that we have not written comes with a way to see more."""
    written = isinstance(error, (ValueError, KeyError, OSError, ImportError))
    ours = written or type(error).__module__.startswith('mmkernel')
    return words_of(error) + ('' if ours else ' (MMKERNEL_TRACEBACK=1 shows where)')
