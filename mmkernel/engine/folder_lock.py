"""One run in a folder: locks of the file system where they reach, signs of life (a heartbeat) where they do not."""

import errno
import fcntl
import itertools
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from mmkernel import owner
from mmkernel.engine.checkpoint import ELSEWHERE, RunFolderError, TakenOverError
from mmkernel.engine.run_record import changed, left_behind, orphaned, read, who
from mmkernel.writing import probe, replacing

SILENT = 120.0  # seconds without a sign of life after which a run on another machine counts as dead
ENDING = 20.0  # seconds in which a process whose launcher has died ends
GOING_ON = (errno.EACCES, errno.EAGAIN)


class FolderLock:
    """``look`` (nothing is changed), ``hold``, ``check`` before each write, ``release``: all in one process of a run.

    ``run.json`` names the owner: host, process, when it started, and a token. A thread touches it every ``silent`` / 8
    seconds. Who finds it there: on the same machine the lock of ``.run.lock`` decides, or without such locks whether the
    process is there. Of another machine signs of life are waited for: for ``silent`` seconds since the last one by the
    file system's clock, at least for ``silent`` / 4. Clocks of machines are not compared, and may jump.
    """

    def __init__(self, mark: Path, silent: float = SILENT) -> None:
        self.mark, self.silent, self.pid = mark, silent, os.getpid()
        self.token, self.said, self.overruled = uuid.uuid4().hex, '', False
        self.file: TextIO | None = None
        self.record: dict[str, Any] = {}
        self.end = threading.Event()

    @property
    def place(self) -> Path:
        return self.mark.with_name('.run.lock')

    def look(self) -> dict[str, Any]:
        """What ``run.json`` says, if its run has ended or counts as dead; {} where there is none. RunFolderError otherwise."""
        before = read(self.mark)
        if before.get('token') == self.token:
            return before
        locked = self._locked(before)
        if locked is False and (before.get('ended') or not before.get('token')):
            raise self._going_on(before)
        if not before.get('token') or before.get('ended'):
            return before
        gone = owner.gone(before['tag'])
        if before['machine'] == owner.machine() and locked is not None:
            alive = not locked or gone is False  # some file systems grant every lock
        else:
            alive = self._beats(before) if gone is None else not gone
        if alive:
            raise self._going_on(before)
        self.overruled = locked is False  # servers keep the lock of a machine that is gone
        self.said = f'The folder was that of {who(before)}, which has ended without a word: this run takes it over.'
        return before

    def hold(self, before: dict, **about: Any) -> None:
        """Write this process's name over that of ``before``, which ``look`` gave. Of several that do so at once, one succeeds."""
        if self._locked(before, make=True) is False and not self.overruled:
            raise self._going_on(read(self.mark))
        claim = None if before.get('token') == self.token else self._claim(before)
        try:
            if read(self.mark).get('token') != before.get('token'):
                raise self._going_on(read(self.mark))
            self.record = dict(
                **about, host=owner.host(), machine=owner.machine(), pid=os.getpid(), tag=owner.tag(), parent=os.getppid(),
                started=time.ctime(), silent=self.silent, token=self.token,
            )  # fmt: skip
            self._write(self.record)
        except BaseException:
            if claim:
                claim.unlink(missing_ok=True)
            raise
        for old in self._claims(before):
            old.unlink(missing_ok=True)
        self.check()
        self.end.set()
        self.end = threading.Event()
        threading.Thread(target=self._beat, args=(self.end,), daemon=True).start()

    def check(self) -> None:
        """TakenOverError if another run has taken the folder over. Call it before each write."""
        try:
            now = read(self.mark)
        except OSError:  # the disk is away: the write itself will say so
            return
        if now and now.get('token') != self.token:  # a file that was deleted is nobody's
            raise TakenOverError(
                f"The folder '{self.mark.parent}' was taken over by {who(now)}: this run gave no sign of life for "
                f'{self.silent:g} s (it was stopped, or the disk was away). It ends here and writes nothing more; the other '
                'goes on from its last checkpoint.'
            )

    def release(self) -> None:
        self.end.set()
        with suppress(OSError, RunFolderError):  # a disk that is away: those who come wait for signs of life
            if self.pid == os.getpid() and self.record and read(self.mark).get('token') == self.token:
                self._write({**self.record, 'ended': time.ctime()})
        if self.file:
            self.file.close()

    def lies_there(self) -> bool:
        """Whether the folder is the one that was locked: it may have been taken away in between."""
        try:
            return self.file is None or os.path.samestat(os.fstat(self.file.fileno()), self.place.stat())
        except FileNotFoundError:
            return False

    def _write(self, record: dict) -> None:
        with replacing(self.mark) as temporary:
            temporary.write_text(json.dumps(record) + '\n')

    def _locked(self, before: dict, make: bool = False) -> bool | None:
        """Whether this process has the lock now; None where there are no locks, or no file to lock yet."""
        try:
            if self.file is None and (make or self.place.exists()):
                self.file = self.place.open('a+')
        except PermissionError:  # another user's
            return None
        if self.file is None:
            return None
        deadline = time.monotonic() + ENDING
        while True:
            try:
                # it belongs to the process: workers of a loader may outlive it, and do not inherit it
                fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except OSError as error:
                if error.errno not in GOING_ON:
                    return None
            if not orphaned(before) or time.monotonic() > deadline:
                return False
            time.sleep(0.2)  # its launcher was killed: it is about to end

    def _beat(self, end: threading.Event) -> None:
        while not end.wait(self.silent / 8):
            try:
                self.check()
                os.utime(self.mark)
            except (OSError, RunFolderError):
                continue  # the next write of the run says it; a disk that is away may come back

    def _beats(self, before: dict) -> bool:
        """Whether the owner touches its file while this process watches."""
        silent = max(self.silent, before['silent'])
        first = changed(self.mark)
        age = (probe(self.mark.parent).st_mtime_ns - (first or 0)) / 1e9
        wait = min(max(silent - age, silent / 4), silent)
        print(f'Is {who(before)}, still there? Waiting {wait:.0f} s for a sign of life.', file=sys.stderr, flush=True)
        return not all(changed(self.mark) == first for _ in _looks(wait))

    def _claim(self, before: dict) -> Path:
        """A file that one process alone can make, with its tag. One whose maker has died is passed over, never deleted."""
        for n in itertools.count(1):
            path = self.mark.with_name(f'{self._stem(before)}{n}')
            try:
                with path.open('x') as file:
                    file.write(owner.tag())
                return path
            except FileExistsError:
                if not left_behind(path) and not all(path.exists() for _ in _looks(self.silent / 4)):
                    raise self._going_on(read(self.mark)) from None

    def _stem(self, before: dict) -> str:
        return f'.run.{before.get("token", "new")}.'

    def _claims(self, before: dict) -> list[Path]:
        return [*self.mark.parent.glob(f'{self._stem(before)}*')]

    def _going_on(self, about: dict) -> RunFolderError:
        return RunFolderError(f"A run is going on in '{self.mark.parent}' ({who(about)}). Take {ELSEWHERE}.")


def _looks(seconds: float) -> Iterator[None]:
    """A yield now and then for ``seconds`` of a clock that is not set."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        yield
        time.sleep(min(left, seconds / 20))
    yield
