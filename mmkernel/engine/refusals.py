"""A start that is refused: which part of the config is to blame, whether the error is one that we have written, and a work folder
that is left as it was.
"""

import dis
import logging
import os
import re
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from torch import nn

import mmkernel
from mmkernel.checks import NonFiniteLossError, words_of
from mmkernel.engine.allowed_keys import ConfigError, at, walk
from mmkernel.engine.checkpoint import TakenOverError
from mmkernel.engine.hooks import unwrap

HOME = str(Path(mmkernel.__file__).parent) + os.sep
SHAPES = re.compile(r'shapes? |size of tensor|size mismatch|to have \d+ channels|dimension')
KEPT = (NonFiniteLossError, TakenOverError)  # no refusals: the record of a loss; a folder that is another's by now
OURS = ('run.json', 'config.py')  # beside the folder of logs, what a start writes


def is_refusal(error: BaseException | None) -> bool:
    """Whether ``error`` comes from a ``raise`` of this package: a check of ours has said what is wrong, and where."""
    if not isinstance(error, Exception) or error.__traceback__ is None:
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    end = error.__traceback__
    while end.tb_next is not None:
        end = end.tb_next
    code = frame.f_code
    return code.co_filename.startswith(HOME) and code.co_code[end.tb_lasti] == dis.opmap['RAISE_VARARGS']


@contextmanager
def building(cfg: Mapping, where: str) -> Iterator[None]:
    """An error inside becomes a ConfigError that names the part of ``cfg`` at or below ``where`` which was being built.

    Except for files that are missing, a device without memory, and what is said already.
    """
    try:
        yield
    except (ConfigError, NonFiniteLossError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        place, text = _place(error, cfg, where), _said(error)
        raise ConfigError(text if text.startswith(place) else f'{place}: {text}') from error


def _said(error: Exception) -> str:
    """Its words; of an error that is not ours the first line, and a way to see more."""
    text = words_of(error)
    first = next(iter(text.strip().splitlines()), 'no words')
    return text if is_refusal(error) else f'{type(error).__name__}: {first} (MMKERNEL_TRACEBACK=1 shows where)'


def _place(error: BaseException, cfg: Mapping, where: str) -> str:
    """The path of the part that ``Registry.build`` was building; builders add keywords to what the config says."""
    built = getattr(error, 'built', {})
    for path, node in walk(getattr(cfg, '_cfg_dict', cfg)):
        inside = (not where or f'{path}.'.startswith(f'{where}.')) and node.get('type') is not None
        if inside and all(key in built and built[key] == value for key, value in node.items()):
            return path
    return where


@contextmanager
def naming_part(runner: Any) -> Iterator[None]:
    """Up to the end of the first step, an error becomes a ConfigError that names the part of the config it comes from: of what a
    hook builds, and of torch, about shapes that do not meet in a module.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        if _steps(runner) or isinstance(error, (ConfigError, NonFiniteLossError)):
            raise
        place = _place(error, runner.cfg, '')
        if not place and isinstance(error, RuntimeError) and SHAPES.search(str(error)):
            place = _place_of_module(error, runner)
        if not place:
            raise
        raise ConfigError(f'{place}: {_said(error)}') from error


def _place_of_module(error: BaseException, runner: Any) -> str:
    """The path in the config of the innermost module of the model on the way to ``error``; '' if there is none."""
    names = {part: name for name, part in unwrap(runner.model).named_modules()}
    parts = [frame.f_locals.get('self') for frame, _ in traceback.walk_tb(error.__traceback__)]
    name = next((names[part] for part in reversed(parts) if isinstance(part, nn.Module) and part in names), None)
    keys = [] if name is None else f'model.{name}'.split('.')
    paths = ('.'.join(keys[:n]) for n in range(len(keys), 0, -1))
    return next((path for path in paths if at(runner.cfg._cfg_dict, path) is not None), '')


class FolderAsFound:
    """What lies in a folder, or that there is none; ``restore`` makes it so again."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.there = {item.name for item in self.path.iterdir()} if self.path.is_dir() else None
        config = self.path / 'config.py'
        self.config = config.read_bytes() if config.is_file() else None

    def restore(self, logs: str | None) -> None:
        """Take away ``logs`` and what else this start wrote, while it still holds the lock of the folder.

        None: it never held it. Then what has appeared since is another's, whose run may be going on.
        """
        if logs is None:
            if self.there is None:
                with suppress(OSError):  # not empty, or gone
                    self.path.rmdir()
            return
        shutil.rmtree(self.path / logs, ignore_errors=True)
        before = self.there or set()
        for path in self.path.glob('config.py.old*') if self.config is not None else ():
            if path.name not in before and path.read_bytes() == self.config:
                path.replace(self.path / 'config.py')
        for name in OURS:
            if name not in before:
                (self.path / name).unlink(missing_ok=True)
        if self.there is None and self.path.is_dir() and {item.name for item in self.path.iterdir()} <= {'.run.lock'}:
            shutil.rmtree(self.path)


@contextmanager
def leaving_as_found(runner: Any) -> Iterator[None]:
    """The start of ``runner`` goes on inside. An error closes what is open; one that is a refusal, of a run that has made no step,
    leaves no trace in the work folder.
    """
    try:
        yield
    except BaseException as error:
        if is_main_process() and is_refusal(error) and not isinstance(error, KEPT) and not _steps(runner):
            logger = getattr(runner, 'logger', None)
            for handler in [*getattr(logger, 'handlers', [])]:
                handler.close()
                if isinstance(
                    handler, logging.FileHandler
                ):  # its folder goes, and the logger stays mmengine's current one
                    logger.removeHandler(handler)
            runner.as_found.restore(getattr(runner, 'timestamp', None))
        runner._leave()
        raise


def _steps(runner: Any) -> int:
    """Iterations that this start has done."""
    return 0 if runner.began is None else runner.iter - runner.began
