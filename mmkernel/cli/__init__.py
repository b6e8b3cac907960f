"""``mmkernel COMMAND ...``: one table of commands; each is a function, whose signature and docstring are its help.

A command of your own is one line in ``COMMANDS``. Files are imported when their command is called, so help is quick.
Options that several commands have mean the same in each: ``mmkernel.cli.options``.
"""

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from cyclopts import App, CycloptsError, Group, Parameter

import mmkernel
from mmkernel.checks import words_of
from mmkernel.cli.terminal import console, warnings_once

atexit.register(gc.freeze)  # Python's last collections would visit all of torch, for seconds, and free what ends anyway


class Command(NamedTuple):
    """A line of the table. The first word of each example follows ``mmkernel NAME``; examples work as they stand."""

    group: str
    summary: str
    function: str  # 'module:function'
    examples: tuple[str, ...]
    whole: bool = False  # the function reports its errors itself


MENDABLE = (ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError)
"""Errors that bad input can cause."""

RUN = 'work_dirs/kernels/digits_rbf'
FILE = f'{RUN}/epoch_20.pth'
GROUPS = ('Pretrain', 'Judge', 'Look', 'Weights')
COMMANDS = {
    'train': Command(
        'Pretrain', 'pretrain an encoder from a config', 'mmkernel.cli.train:train',
        ('configs/kernels/digits_rbf.py', 'configs/sfrik/digits_L3.py --cfg-options train_cfg.max_epochs=5',
         'configs/sfrik/r50_L3_q32768.py --dry-run --gpus 8 --memory 80GB'), whole=True),
    'diagnose': Command(
        'Look', 'is this embedding healthy, doubtful or collapsed? a page in words and pictures',
        'mmkernel.cli.diagnose:diagnose', (FILE, f'{FILE} --images 500 --out page', f'{FILE} --json')),
}  # fmt: skip
FOLDERS = {
    'kernel': ('Look', 'show, compare and fit kernels K(u, v) = phi(u.v) on the sphere'),
    'zoo': ('Weights', 'published weights by name: list, info, download, verify, clean'),
    'data': ('Pretrain', 'your images before training: sizes, mean and std, damaged files, duplicates, speed'),
}
"""The first word of commands that have two, such as ``kernel show``: its group and what it says of itself."""

OLD = {  # function(args) with function_options(parser)
    'data': 'mmkernel.cli.data:data', 'replay': 'mmkernel.cli.replay:replay', 'kernel': 'mmkernel.cli.kernel_lab:kernel',
    'zoo': 'mmkernel.cli.zoo:zoo', 'export': 'mmkernel.cli.weights:export', 'import': 'mmkernel.cli.weights:import',
    'publish': 'mmkernel.cli.weights:publish',
}  # fmt: skip


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
    root.register_install_completion_command(group=groups.get('Options', root.group_commands))
    folders = {
        name: App(name, help=_sentence(summary), group=groups[group]) for name, (group, summary) in FOLDERS.items()
    }
    for number, (name, command) in enumerate(COMMANDS.items()):
        first, _, second = name.rpartition(' ')
        parent = folders[first] if first else root
        examples = ''.join(f'\n  mmkernel {name} {example}' for example in command.examples)
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
    name = next((name for n in (2, 1) for name in [' '.join(argv[:n])] if name in COMMANDS or name in OLD), '')
    prog = f'mmkernel {name}'.strip()
    console.stderr = '--json' in argv  # what is said to a person goes beside the one document on stdout
    try:
        with warnings_once():
            old(argv[0], argv[1:]) if argv[0] in OLD else app()(
                argv, exit_on_error=False, print_error=False, result_action='return_value'
            )
    except CycloptsError as error:
        print(f'{prog}: {error} {prog} --help explains it.', file=sys.stderr)
        sys.exit(2)
    except MENDABLE as error:
        if os.environ.get('MMKERNEL_TRACEBACK') == '1' or (name in COMMANDS and COMMANDS[name].whole):
            raise
        sys.exit(f'{prog}: {explain(error)}')
    except KeyboardInterrupt:
        sys.exit(130)


def old(name: str, argv: list[str]) -> None:
    module, function = OLD[name].split(':')
    functions = vars(import_module(module))
    parser = argparse.ArgumentParser(prog=f'mmkernel {name}')
    functions[f'{function}_options'](parser)
    args = parser.parse_args(argv)
    getattr(args, 'run', functions.get(function))(args)


def explain(error: Exception) -> str:
    """The message of one of ``MENDABLE``; one that we have not written comes with a way to see more."""
    written = isinstance(error, (ValueError, KeyError, OSError, ImportError))
    ours = written or type(error).__module__.startswith('mmkernel')
    return words_of(error) + ('' if ours else ' (MMKERNEL_TRACEBACK=1 shows where)')
