"""The work folder of a run: one run writes into it at a time, and deletes only what is its own."""

import os
import shlex
import shutil
import uuid
from pathlib import Path
from typing import Any

from mmkernel import owner
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
from mmkernel.engine.folder_lock import SILENT, FolderLock
from mmkernel.engine.run_record import foreign
from mmkernel.engine.sharded_state import drop_loose_shards, shards_go
from mmkernel.evaluation import CRITERIA
from mmkernel.writing import drop_leftovers, replacing, room, set_aside, size, try_folder
from mmkernel.zoo.files import CheckpointError

# (process, folder) -> its lock. If a process opened the file twice, closing one of the two would release the lock.
_held: dict[tuple[int, Path], FolderLock] = {}


class RunFolder:
    """``take`` it before anything is written, ``release`` it at the end. Process 0 alone does both.

    ``run.json`` names the run and its process (``folder_lock.py``). ``run`` stands in every checkpoint. A file of another run
    under a name that this one needs is renamed to NAME.old. Another machine's run that gives no sign of life for ``silent``
    seconds counts as dead.
    """

    def __init__(self, path: str | Path, silent: float = SILENT) -> None:
        self.path = Path(path).resolve()
        self.mark, self.silent, self.said = self.path / 'run.json', silent, ''
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
            before = {} if new else self._lock().look()
            again = int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0  # torchrun --max-restarts
            restarted = again and before.get('launch') == _launch()
            self.resumed = self._find(resume or restarted, None if restarted and self._left() else file, new)
            if self.resumed and check:
                check(self.resumed, checkpoint_meta(self.resumed))
            lock = self._lock()
            if self.resumed and self.resumed.parent == self.path:
                self._go_on(checkpoint_meta(self.resumed))
            lock.hold(before, run=self.run, launch=_launch())
        except BaseException:
            self.release()
            raise
        self._drop_leftovers(str(before.get('tag')))
        self.said = lock.said
        return self.resumed

    def check(self) -> None:
        """RunFolderError if another run has taken the folder over. Processes that hold no lock are not asked."""
        if lock := _held.get((os.getpid(), self.path)):
            lock.check()

    def release(self) -> None:
        if lock := _held.pop((os.getpid(), self.path), None):
            lock.release()

    def make_room(self, path: Path) -> None:
        """Rename what lies at ``path`` and is not this run's own. RunFolderError if the folder is another's by now."""
        self.check()
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
            with shards_go(path):
                path.unlink(missing_ok=True)
            self.checkpoints.remove(path)

    def write_config(self, text: str) -> None:
        """Write ``config.py``. A different one of an earlier start is kept as NAME.old."""
        path = self.path / 'config.py'
        with replacing(path, last=self.check) as new:
            new.write_text(text)
            if path.exists() and path.read_text(errors='replace') != text:
                set_aside(path)

    def try_room(self, needed: int) -> str:
        """RunFolderError if a checkpoint of ``needed`` bytes has no room; a warning if a second one has none, else ''."""
        free = room(self.path)
        said = f"A checkpoint takes about {size(needed)}, and {size(free)} can be written in '{self.path}'"
        if free < needed:
            raise RunFolderError(f'{said}: make room, or take {ELSEWHERE}.')
        return '' if free >= 2 * needed else f'{said}: the old one goes only after the new one is written.'

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
                f'(mmkernel resume {shlex.quote(str(self.path))}; --resume; in Python resume=True), or take {ELSEWHERE}.'
            )
        if found is None and new and (self.path / 'config.py').exists():
            raise foreign(self.path / 'config.py')
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

    def _drop_leftovers(self, last: str) -> None:
        """Delete what runs of this folder were writing when they died; ``last`` is the tag of the one before."""
        drop_leftovers(self.path, '*', lambda tag: tag == last or owner.gone(tag))
        for half in (*self.path.glob('.epoch_*.pth.tmp'), *self.path.glob('.best_*.pth.tmp')):
            half.unlink(missing_ok=True)  # of an earlier version
        for half in self.path.glob('.*.shards.tmp'):
            shutil.rmtree(half, ignore_errors=True)
        drop_loose_shards(self.path)

    def _lock(self) -> FolderLock:
        """Of this process and folder; it stays until ``release`` or the end of this process."""
        key = os.getpid(), self.path
        if key in _held and not _held[key].lies_there():
            self.release()  # of a folder that was taken away in between
        return _held.setdefault(key, FolderLock(self.mark, self.silent))


def make_folder(path: str | Path) -> None:
    """Make a work folder, and try it. RunFolderError if it cannot be written."""
    try:
        try_folder(Path(path))
    except OSError as error:
        text = f"The work folder '{path}' cannot be written ({error.strerror}): take {ELSEWHERE}."
        raise RunFolderError(text) from error


def _launch() -> str | None:
    """A name of this process's launcher, which stays when it restarts the process; None without one."""
    name = f'{os.environ.get("TORCHELASTIC_RUN_ID")} {owner.host()} {os.getppid()}'
    return name if 'TORCHELASTIC_RESTART_COUNT' in os.environ else None
