"""``mmkernel COMMAND ...``: one table of commands; each is a function in a file of its own, and one that adds its options.

A command of your own is one line in ``COMMANDS``. Files are imported when their command is called, so help is quick.
"""

import argparse
import atexit
import gc
import os
import runpy
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import mmkernel
from mmkernel.checks import did_you_mean, words_of

atexit.register(gc.freeze)  # Python's last collections would visit all of torch, for seconds, and free what ends anyway


class Command(NamedTuple):
    """``function`` takes the parsed arguments, ``<function>_options`` a parser; ``example`` stands in the help."""

    summary: str
    function: str  # 'module:function'
    example: str
    whole: bool = False  # the function takes (argv, prog), and reports its errors itself


MENDABLE = (ValueError, KeyError, TypeError, RuntimeError, OSError, ImportError)
"""Errors that bad input can cause."""

RUN = 'work_dirs/kernels/digits_rbf/epoch_20.pth'
COMMANDS = {
    'train': Command(
        'pretrain an encoder from a config', 'mmkernel.cli.train:main', 'configs/kernels/digits_rbf.py', whole=True),
    'data': Command(
        'look at your images before training: sizes, mean and std, damaged files, duplicates, speed', 'mmkernel.cli.data:data',
        'check /my/train --test /my/test'),
    'diagnose': Command(
        'is this embedding healthy, doubtful or collapsed? a page in words and pictures', 'mmkernel.cli.diagnose:diagnose', RUN),
    'replay': Command(
        'do the step again that ended a run with NaN or infinity, and name the first module with a bad value',
        'mmkernel.cli.replay:replay', 'work_dirs/kernels/digits_rbf/20260101_120000/non_finite.pth'),
    'benchmark': Command(
        'kNN, linear, few labels, transfer, ...: judge an encoder by a published protocol', 'mmkernel.cli:benchmark',
        f'knn configs/kernels/digits_rbf.py {RUN}', whole=True),
    'kernel': Command(
        'show, compare and fit kernels K(u, v) = phi(u.v) on the sphere', 'mmkernel.cli.kernel_lab:kernel',
        'show LegendreKernel weights=1,40,40 --width 256'),
    'zoo': Command('published weights by name: list, info, download, verify, clean', 'mmkernel.cli.zoo:zoo', "list '*r50*'"),
    'export': Command(
        'write an encoder for timm, torchvision, the hub, ONNX, detectors; proven by equal features',
        'mmkernel.cli.weights:export', f'{RUN} --to onnx'),
    'import': Command(
        'read weights of another library into a file of this one', 'mmkernel.cli.weights:import',
        'resnet50.pth --from torchvision --arch resnet50'),
    'publish': Command(
        'make a file for others of a checkpoint: weights only, hash in the name, card', 'mmkernel.cli.weights:publish',
        f'{RUN} --name digits_rbf'),
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
        hint = did_you_mean(argv[0], COMMANDS, f'There are: {", ".join(COMMANDS)}.')
        sys.exit(f"mmkernel: unknown command '{argv[0]}'. {hint} 'mmkernel --help' explains them.")


def call(name: str, argv: list[str]) -> None:
    """Run one command. A mistake of the user ends it with one line; MMKERNEL_TRACEBACK=1 shows the traceback."""
    command, prog = COMMANDS[name], f'mmkernel {name}'
    module, function = command.function.split(':')
    functions = vars(import_module(module))
    if command.whole:
        functions[function](argv, prog)
        return
    parser = argparse.ArgumentParser(prog=prog, description=f'{command.summary[0].upper()}{command.summary[1:]}.')
    functions[f'{function}_options'](parser)
    args = parser.parse_args(argv)
    try:
        getattr(args, 'run', functions.get(function))(args)  # a subcommand has a function of its own
    except MENDABLE as error:
        if os.environ.get('MMKERNEL_TRACEBACK') == '1':
            raise
        sys.exit(f'{prog}: {explain(error)}')
    except KeyboardInterrupt:
        sys.exit(130)


def explain(error: Exception) -> str:
    """The message of one of ``MENDABLE``; one that we have not written comes with a way to see more."""
    written = isinstance(error, (ValueError, KeyError, OSError, ImportError))
    ours = written or type(error).__module__.startswith('mmkernel')
    return words_of(error) + ('' if ours else ' (MMKERNEL_TRACEBACK=1 shows where)')


def usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f'mmkernel {mmkernel.__version__}: image encoders without labels, kernels on the sphere', '', 'commands:']
    lines += [f'  {name:<{width}}  {command.summary}' for name, command in COMMANDS.items()]
    lines += ['', 'for example:']
    lines += [f'  mmkernel {name} {command.example}' for name, command in COMMANDS.items()]
    return '\n'.join([*lines, '', "'mmkernel COMMAND --help' says what a command takes."])


def benchmark(argv: list[str], prog: str) -> None:
    """Run a script of tools/benchmarks, from a checkout or from inside an installed package."""
    from mmkernel.zoo.catalogue import root  # mmengine: a second to import

    texts = {path: path.read_text(encoding='utf-8') for path in sorted((root() / 'tools/benchmarks').glob('*.py'))}
    scripts = {path.stem: path for path, text in texts.items() if '__main__' in text}
    if not argv or argv[0] in ('-h', '--help'):
        summaries = {name: texts[path].splitlines()[0].strip('"') for name, path in scripts.items()}
        print('\n'.join([f'{prog} NAME ...', *(f'  {name:<18} {summary}' for name, summary in summaries.items())]))
        return
    name, *words = argv
    if name not in scripts:
        hint = did_you_mean(name, scripts, f'There are: {", ".join(scripts)}.')
        sys.exit(f"{prog}: no benchmark is called '{name}'. {hint}")
    sys.path.insert(0, str(scripts[name].parent))
    sys.argv = [str(scripts[name]), *words]
    runpy.run_path(str(scripts[name]), run_name='__main__')
