"""``mmkernel COMMAND ...``: one table of commands; each is a function of the command line in a file of its own.

A command of your own is one line in ``COMMANDS``. Files are imported when their command is called, so help is quick.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import mmkernel


class Command(NamedTuple):
    """``function`` takes (argv, prog); ``example`` stands in the help."""

    summary: str
    function: str  # 'module:function'
    example: str
    one_line: bool = True  # an error ends it with one line; False: it reports its own


MENDABLE = (ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError)
"""What a person's input can lead to."""

COMMANDS = {
    'train': Command(
        'pretrain an encoder from a config', 'mmkernel.cli.train:main', 'configs/kernels/digits_rbf.py', one_line=False
    ),
    'diagnose': Command(
        'is this embedding healthy or collapsed? a page in words and pictures', 'mmkernel.cli.diagnose:main',
        'work_dirs/kernels/digits_rbf/epoch_20.pth',
    ),
    'benchmark': Command(
        'kNN, linear, few labels, transfer, ...: judge an encoder by a published protocol', 'mmkernel.cli.benchmark:main',
        'knn configs/kernels/digits_rbf.py work_dirs/kernels/digits_rbf/epoch_20.pth', one_line=False,
    ),
    'kernel': Command(
        'show, compare and fit kernels on the sphere', 'mmkernel.cli.kernel:main',
        'show LegendreKernel weights=1,40,40 --width 256',
    ),
    'zoo': Command(
        'published weights by name: list, info, download, verify, clean', 'mmkernel.cli.zoo:main', "list '*r50*'",
    ),
    'export': Command(
        'write an encoder for timm, torchvision, the hub, ONNX, detectors; proven by equal features',
        'mmkernel.cli.export:main', 'work_dirs/kernels/digits_rbf/epoch_20.pth --to onnx',
    ),
    'import': Command(
        'read weights of another library into a file of this one', 'mmkernel.cli.import_weights:main',
        'resnet50.pth --from torchvision --arch resnet50',
    ),
    'publish': Command(
        'make a file for others of a checkpoint: weights only, hash in the name, card', 'mmkernel.cli.publish:main',
        'work_dirs/kernels/digits_rbf/epoch_20.pth --name digits_rbf',
    ),
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Entry of the console script ``mmkernel``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help', 'help'):
        print(usage())
    elif argv[0] in ('-V', '--version'):
        print(f'mmkernel {mmkernel.__version__}')
    elif argv[0] in COMMANDS:
        call(argv[0], argv[1:])
    else:
        near = difflib.get_close_matches(argv[0], COMMANDS, n=1, cutoff=0.5)
        hint = f"Did you mean '{near[0]}'?" if near else f'There are: {", ".join(COMMANDS)}.'
        sys.exit(f"mmkernel: unknown command '{argv[0]}'. {hint} 'mmkernel --help' explains them.")


def call(name: str, argv: list[str]) -> None:
    """Run one command. What a user did wrong ends it with one line; MMKERNEL_TRACEBACK=1 shows where it came from."""
    command = COMMANDS[name]
    module, function = command.function.split(':')
    run = getattr(import_module(module), function)
    if not command.one_line or os.environ.get('MMKERNEL_TRACEBACK') == '1':
        run(argv, f'mmkernel {name}')
        return
    try:
        run(argv, f'mmkernel {name}')
    except MENDABLE as error:
        sys.exit(f'mmkernel {name}: {explain(error)}')
    except KeyboardInterrupt:
        sys.exit(130)


def explain(error: Exception) -> str:
    """The message of one of ``MENDABLE``; one that we have not written comes with a way to see more."""
    # str() of a KeyError is the repr of its message
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    ours = isinstance(error, (ValueError, KeyError, OSError, ImportError)) or type(error).__module__.startswith(
        'mmkernel'
    )
    return f'{text}' + ('' if ours else ' (MMKERNEL_TRACEBACK=1 shows where)')


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'mmkernel {mmkernel.__version__}: image encoders without labels, kernels on the sphere', '', 'commands:']
    lines += [f'  {name:<{width}}  {command.summary}' for name, command in COMMANDS.items()]
    lines += ['', 'for example:']
    lines += [f'  mmkernel {name} {command.example}' for name, command in COMMANDS.items()]
    return '\n'.join([*lines, '', "'mmkernel COMMAND --help' says what a command takes."])
