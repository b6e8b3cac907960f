"""Who this process is, in words by which others tell whether it is still there: its pid may be another's by then."""

import hashlib
import os
import platform
import re
import uuid
from contextlib import suppress
from pathlib import Path

TAG = re.compile(r'([0-9a-f]{8})p(\d+)s(\d*)')


def born(pid: int) -> str | None:
    """When a process of this machine started, in ticks since the machine did ('': unknown); None if it has ended.

    One that has ended and waits for its parent to notice counts as ended.
    """
    if os.name != 'posix':  # signal 0 is Ctrl-C there
        return ''
    try:
        with suppress(PermissionError):  # it is there, and another user's
            os.kill(pid, 0)
    except ProcessLookupError:
        return None
    try:
        state, *rest = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except OSError:  # no /proc, or it is closed
        return ''
    return None if state in 'ZX' else rest[18]


def parent(pid: int) -> int | None:
    """The parent of a process of this machine; None if it has ended or nobody says."""
    try:
        return int(Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[1])
    except OSError:
        return None


def host() -> str:
    """The name of this machine, for people."""
    return platform.node()


def machine() -> str:
    """8 hex digits for this machine since its start: containers on it have other names, two machines may have one name."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text()
    except OSError:
        boot = str(uuid.getnode())
    return _short(host(), boot)


def tag() -> str:
    """``<machine and its space of pids>p<pid>s<start>`` of this process: the owner that a temporary file names."""
    return f'{_space()}p{os.getpid()}s{born(os.getpid())}'


def gone(tag: str) -> bool | None:
    """Whether the process of a ``tag`` has ended; None where this one cannot know: it was another machine's, or no tag."""
    found = TAG.fullmatch(tag)
    if found is None or found[1] != _space():
        return None
    now = born(int(found[2]))
    return now is None or (now != found[3] and '' not in (now, found[3]))


def _space() -> str:
    try:
        pids = os.readlink('/proc/self/ns/pid')
    except OSError:
        pids = ''
    return _short(machine(), pids)


def _short(*words: str) -> str:
    return hashlib.sha256('\n'.join(words).encode()).hexdigest()[:8]
