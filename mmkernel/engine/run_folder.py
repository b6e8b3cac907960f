"""The work folder of a run: one run writes into it at a time, and deletes only what is its own."""

import errno
import fcntl
import json
import os
import platform
import time
import uuid
import warnings
from pathlib import Path
from typing import Any, TextIO

from mmkernel.engine.checkpoint import (
    ELSEWHERE,
    RunFolderError,
    checkpoint_meta,
    checkpoint_to_resume,
    epoch_files,
    list_checkpoints,
    position,
    shown,
)
from mmkernel.evaluation import CRITERIA
from mmkernel.evaluation.report import set_aside
from mmkernel.zoo.files import CheckpointError

# (process, folder) -> its lock. If a process opened the file twice, closing one of the two would release the lock.
_held: dict[tuple[int, Path], TextIO] = {}


class RunFolder:
    """``take`` it before anything is written, ``release`` it at the end. Process 0 alone does both.

    ``run.json`` names the run and is locked while the run is going on. ``run`` stands in every checkpoint. A file of another
    run under a name that this one needs is renamed to NAME.old.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.mark = self.path / 'run.json'
        self.run = uuid.uuid4().hex
        self.resumed: Path | None = None  # the checkpoint that the run goes on from
        self.runs: set[str | None] = {self.run}  # whose files are this run's own
        self.checkpoints: list[Path] = []  # its own, oldest first, without best_*.pth

    def take(self, resume: bool = False, file: str | Path | None = None, check: Any = None) -> Path | None:
        """The checkpoint to resume from: ``file``, or without one the furthest of the folder; None: start from the beginning.

        ``check(path, meta)`` may refuse it. RunFolderError if the folder holds a run that is not resumed, would be
        overwritten, or is going on; CheckpointError if no checkpoint opens. An error leaves the folder unchanged.
        """
        new = not self.mark.exists()
        try:
            before = {} if new else _read(self._lock())
            again = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0  # torchrun --max-restarts
            restarted = again and before.get('launch') == _launch()
            self.resumed = self._find(resume or restarted, None if restarted and self._left() else file, new)
            if self.resumed and check:
                check(self.resumed, checkpoint_meta(self.resumed))
            lock = self._lock()
        except BaseException:
            self.release()
            raise
        if self.resumed and self.resumed.parent == self.path:
            self._go_on(checkpoint_meta(self.resumed))
        about = dict(run=self.run, launch=_launch(), host=platform.node(), pid=os.getpid(), started=time.ctime())
        lock.truncate(0)
        lock.write(json.dumps(about) + '\n')  # it was opened to append
        lock.flush()
        return self.resumed

    def release(self) -> None:
        if lock := _held.pop((os.getpid(), self.path), None):
            lock.close()

    def make_room(self, path: Path) -> None:
        """Rename what lies at ``path`` and is not this run's own."""
        if path.exists() and path not in self.checkpoints:
            try:
                own = checkpoint_meta(path).get('run') in self.runs
            except CheckpointError:
                own = False
            if not own:
                set_aside(path)

    def wrote(self, path: Path) -> None:
        """Note that this run wrote ``path``; every process calls it."""
        if path.parent == self.path and path.match('epoch_*.pth'):
            self.checkpoints = [*(own for own in self.checkpoints if own != path), path]

    def drop_oldest(self, keep: int) -> None:
        """Delete the checkpoints of this run, except the last ``keep``."""
        for path in self.checkpoints[: max(len(self.checkpoints) - keep, 0)]:
            path.unlink(missing_ok=True)
            self.checkpoints.remove(path)

    def last_good(self) -> Path | None:
        """The newest checkpoint of this run, or the one that it was resumed from."""
        return next((path for path in reversed(self.checkpoints) if path.is_file()), self.resumed)

    def way_back(self) -> str:
        """A sentence that says how to continue a run that has failed."""
        good = self.last_good()
        if good is None:
            return 'There is no checkpoint yet: the same command with the same seed replays the same batches.'
        return f'The last good checkpoint is {good}: --resume goes on from it and replays the same batches.'

    def _find(self, resume: bool, file: str | Path | None, new: bool) -> Path | None:
        file = Path(file).resolve() if resume and file is not None else None
        found, left = None, self._left()
        if resume and (file is None or file.parent == self.path):
            found = checkpoint_to_resume(self.path, file, left)
        if found is None and left:
            raise RunFolderError(
                f"The work folder '{self.path}' holds the checkpoints of an earlier run ({shown(left)}). Go on with it "
                f'(--resume; in Python resume=True), or take {ELSEWHERE}.'
            )
        if found is None and new and (self.path / 'config.py').exists():
            raise _foreign(self.path / 'config.py')
        return found or file

    def _left(self) -> list[Path]:
        """Files that a new run would overwrite or take for its own."""
        best = [self.path / f'best_{criterion}.pth' for criterion in CRITERIA]
        return [*epoch_files(self.path), *filter(Path.exists, best)]

    def _go_on(self, meta: dict) -> None:
        """Continue the run of the checkpoint with this ``meta``, in its own folder."""
        self.run = meta.get('run') or self.run
        self.runs = {self.run, meta.get('run')}  # checkpoints of earlier versions name no run
        self.checkpoints = [
            path for path, other in list_checkpoints(self.path)
            if other['run'] in self.runs and other['position'] <= position(meta)
        ]  # fmt: skip
        for half in (*self.path.glob('.epoch_*.pth.tmp'), *self.path.glob('.best_*.pth.tmp')):
            half.unlink()  # that run was killed while it wrote

    def _lock(self) -> TextIO:
        """``run.json``, open, and locked until ``release`` or the end of this process."""
        key = os.getpid(), self.path
        if key in _held and self.mark.exists() and os.path.samestat(os.fstat(_held[key].fileno()), self.mark.stat()):
            return _held[key]
        self.release()  # of a folder that was taken away in between
        file = self.mark.open('a+')
        try:
            # the lock belongs to the process: workers of a loader may outlive it, and do not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                about = {'pid': '?', 'host': '?', 'started': 'a moment ago', **_read(file)}
                file.close()
                who = f'process {about["pid"]} on {about["host"]}, since {about["started"]}'
                raise RunFolderError(f"A run is going on in '{self.path}' ({who}). Take {ELSEWHERE}.") from None
            warnings.warn(f"'{self.path}' has no locks ({error.strerror}): a second run is not noticed.", stacklevel=2)
        _held[key] = file
        return file


def make_folder(path: str | Path) -> None:
    """Make a work folder. RunFolderError if it cannot be written."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, 'it is read-only')
    except OSError as error:
        text = f"The work folder '{path}' cannot be written ({error.strerror}): take {ELSEWHERE}."
        raise RunFolderError(text) from error


def _foreign(path: Path) -> RunFolderError:
    return RunFolderError(f"'{path}' would be replaced, and no run has left it there. Take {ELSEWHERE}.")


def _read(mark: TextIO) -> dict:
    """The content of ``run.json``; empty if a run was killed before writing it. RunFolderError if another program wrote it."""
    mark.seek(0)
    text = mark.read()
    try:
        found = json.loads(text or '{"run": ""}')
    except json.JSONDecodeError:
        found = None
    if not (isinstance(found, dict) and 'run' in found):
        raise _foreign(Path(mark.name))
    return found


def _launch() -> str | None:
    """A name of this process's launcher, which stays when it restarts the process; None without one."""
    name = f'{os.environ.get("TORCHELASTIC_RUN_ID")} {platform.node()} {os.getppid()}'
    return name if 'TORCHELASTIC_RESTART_COUNT' in os.environ else None
