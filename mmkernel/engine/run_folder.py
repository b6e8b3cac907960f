"""The work folder of a run: one run writes into it at a time, and deletes only what is its own."""

from __future__ import annotations

import errno
import json
import os
import platform
import time
import uuid
import warnings
from pathlib import Path
from typing import Any, TextIO

from mmkernel.engine.checkpoint import checkpoint_meta, epoch_files, latest_checkpoint, list_checkpoints
from mmkernel.evaluation import CRITERIA
from mmkernel.evaluation.report import set_aside
from mmkernel.zoo.files import CheckpointError

try:
    import fcntl
except ImportError:  # Windows has other locks
    fcntl = None

MARK = 'run.json'
ELSEWHERE = 'another folder (--work-dir, of a benchmark --out; in Python cfg.work_dir)'
# (process, folder) -> its lock. Opened twice by one process, a lock would be lost with the first close.
_held: dict[tuple[int, Path], TextIO] = {}


class RunFolderError(RuntimeError):
    """A work folder that belongs to another run, or in which one is at work."""


class RunFolder:
    """``take`` it before anything is written, ``release`` it at the end. Process 0 alone does both.

    ``run.json`` names the run and is locked while the run is going on. ``run`` stands in every checkpoint. What lies under
    a name that the run needs and is not its own is renamed to NAME.old, never lost.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.run = uuid.uuid4().hex
        self.resumed: Path | None = None  # the checkpoint that the run goes on from
        self.runs: set[str | None] = {self.run}  # whose files are this run's own
        self.checkpoints: list[Path] = []  # its own epoch_N.pth, oldest first

    def take(self, resume: bool = False, file: str | Path | None = None, check: Any = None) -> Path | None:
        """The checkpoint to resume from: ``file``, or without one the furthest of the folder; None: from the beginning.

        ``check(path, meta)`` may refuse that checkpoint. Errors: RunFolderError for a folder that holds a run which is not
        resumed, would be overwritten, or is going on; CheckpointError where no checkpoint opens. Nothing is changed then.
        """
        mark = self.path / MARK
        new, lock = not mark.exists(), self._lock(mark)
        try:
            before = read_mark(lock)
            again = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0  # torchrun --max-restarts
            restarted = again and before.get('launch') == launch()
            self.resumed = self._find(resume or restarted, None if restarted and self._left() else file, new)
            if self.resumed and check:
                check(self.resumed, checkpoint_meta(self.resumed))
        except BaseException:
            if new:
                mark.unlink(missing_ok=True)
            self.release()
            raise
        self._adopt()
        about = dict(run=self.run, launch=launch(), host=platform.node(), pid=os.getpid(), started=time.ctime())
        lock.seek(0)
        lock.truncate()
        lock.write(json.dumps(about) + '\n')
        lock.flush()
        return self.resumed

    def release(self) -> None:
        lock = _held.pop((os.getpid(), self.path), None)
        if lock is not None:
            lock.close()

    def make_room(self, path: str | Path) -> None:
        """Rename what lies at ``path`` and is not this run's own."""
        path = Path(path)
        if path.exists() and path not in self.checkpoints and not self._is_own(path):
            set_aside(path)

    def wrote(self, path: Path) -> None:
        """``path`` is of this run; every process is told."""
        if path.parent == self.path and path.match('epoch_*.pth'):
            self.checkpoints = [*(own for own in self.checkpoints if own != path), path]

    def drop_oldest(self, keep: int) -> None:
        """Delete this run's own checkpoints of epochs but for the last ``keep``."""
        for path in self.checkpoints[: max(len(self.checkpoints) - keep, 0)]:
            path.unlink(missing_ok=True)
            self.checkpoints.remove(path)

    def last_good(self) -> Path | None:
        """The newest checkpoint of this run, or the one that it was resumed from."""
        return next((path for path in reversed(self.checkpoints) if path.is_file()), self.resumed)

    def way_back(self) -> str:
        """What a run that has failed can go on from, in words."""
        good = self.last_good()
        if good is None:
            return 'There is no checkpoint yet: the same command with the same seed replays the same batches.'
        return f'The last good checkpoint is {good}: --resume goes on from it and replays the same batches.'

    def _find(self, resume: bool, file: str | Path | None, new: bool) -> Path | None:
        file = Path(file).resolve() if resume and file is not None else None
        if not resume or (file and file.parent != self.path):
            self._refuse_used(new)
            return file
        if file is None:
            found = latest_checkpoint(self.path)
            if found is None and (left := self._left()):
                raise CheckpointError(
                    f"--resume: none of the checkpoints in '{self.path}' opens as one of a run ({_names(left)}). Starting from "
                    'the beginning would overwrite them, so nothing was done. Name a file (--resume FILE), start anew in '
                    f'{ELSEWHERE}, or move these files away.'
                )
            if found is None:
                self._refuse_used(new)
            return found
        this = checkpoint_meta(file)
        run, position = this.get('run'), this.get('epoch', 0)
        found = list_checkpoints(self.path)
        if further := [path for path, meta in found if meta['run'] == run and meta['epoch'] > position]:
            raise RunFolderError(
                f"--resume {file.name}: the run in '{self.path}' has gone further ({_names(further)}), and these files would be "
                f'overwritten. Resume without a file to go on from the last, branch off into {ELSEWHERE}, or move these files away.'
            )
        return file

    def _refuse_used(self, new: bool) -> None:
        if left := self._left():
            raise RunFolderError(
                f"The work folder '{self.path}' holds the checkpoints of an earlier run ({_names(left)}). They are left as they "
                f'are. Go on with that run (--resume; in Python resume=True), take {ELSEWHERE}, or move that run away.'
            )
        if new and (self.path / 'config.py').exists():
            raise _foreign(self.path / 'config.py')

    def _left(self) -> list[Path]:
        """Files that a new run would overwrite or take for its own."""
        best = [self.path / f'best_{criterion}.pth' for criterion in CRITERIA]
        return [*epoch_files(self.path), *filter(Path.exists, best)]

    def _adopt(self) -> None:
        """Become the run of ``resumed``: in its own folder the same one, in another a branch of it."""
        if self.resumed is None or self.resumed.parent != self.path:
            return
        meta = checkpoint_meta(self.resumed)
        self.run = meta.get('run') or self.run
        self.runs = {self.run, meta.get('run')}  # checkpoints of earlier versions name no run
        self.checkpoints = [
            path for path, other in list_checkpoints(self.path)
            if other['run'] in self.runs and other['epoch'] <= meta['epoch']
        ]  # fmt: skip
        for half in (*self.path.glob('.epoch_*.pth.tmp'), *self.path.glob('.best_*.pth.tmp')):
            half.unlink()  # that run was killed while it wrote

    def _is_own(self, path: Path) -> bool:
        try:
            return checkpoint_meta(path).get('run') in self.runs
        except CheckpointError:
            return False

    def _lock(self, mark: Path) -> TextIO:
        """``run.json``, open, and locked until ``release`` or the end of this process."""
        key = os.getpid(), self.path
        while True:
            file = _held.get(key) or mark.open('a+')
            if key not in _held:
                self._lock_open(file)
            _held[key] = file
            if mark.exists() and os.path.samestat(os.fstat(file.fileno()), mark.stat()):
                return file
            self.release()  # the file was taken away in between, by a run that was refused or with the whole folder

    def _lock_open(self, file: TextIO) -> None:
        if fcntl is None:
            return
        try:
            # a lock of the process: workers of a loader, which may outlive it, do not inherit it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                warnings.warn(
                    f"'{self.path}' is on a file system without locks ({error.strerror}): a second run in it would not be "
                    'noticed.', stacklevel=2,
                )  # fmt: skip
                return
            about = read_mark(file)
            file.close()
            raise RunFolderError(
                f"A run is going on in '{self.path}' (process {about.get('pid', '?')} on {about.get('host', '?')}, since "
                f'{about.get("started", "a moment ago")}). Two runs in one folder would overwrite each other: take {ELSEWHERE}, '
                'or wait for its end.'
            ) from None


def make_folder(path: str | Path) -> None:
    """Make a work folder. RunFolderError if no file can come to lie in it."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, 'it is read-only')
    except OSError as error:
        raise RunFolderError(
            f"The work folder '{path}' cannot be written ({error.strerror}): take {ELSEWHERE}."
        ) from error


def _names(files: list[Path]) -> str:
    names = [file.name for file in files]
    return ', '.join(names if len(names) <= 6 else [*names[:3], '...', *names[-2:]])


def _foreign(path: Path) -> RunFolderError:
    return RunFolderError(
        f"'{path}' is there already and no run has left it: it would be replaced. Take {ELSEWHERE}, or rename the file."
    )


def read_mark(file: TextIO) -> dict:
    """What ``run.json`` says; empty where a run was killed before it had written it. RunFolderError for another program's."""
    file.seek(0)
    text = file.read()
    try:
        found = json.loads(text or '{}')
    except json.JSONDecodeError:
        found = None
    if text and not (isinstance(found, dict) and 'run' in found):
        raise _foreign(Path(file.name))
    return found


def launch() -> str | None:
    """The launcher of this process, the same after it has started it again; None without one."""
    if 'TORCHELASTIC_RESTART_COUNT' not in os.environ:
        return None
    return f'{os.environ.get("TORCHELASTIC_RUN_ID")} {platform.node()} {os.getppid()}'
