"""``run.json`` of a work folder: which run it is, and whose."""

import json
import os
import re
from pathlib import Path
from typing import Any

from mmkernel import owner
from mmkernel.engine.checkpoint import ELSEWHERE, RunFolderError


def read(mark: Path) -> dict[str, Any]:
    """The content of ``run.json``; {} if there is none, or it is empty. RunFolderError if another program wrote it."""
    try:
        found = json.loads(mark.read_text() or '{"run": ""}')
    except FileNotFoundError:
        return {}
    except ValueError:
        found = None
    whole = isinstance(found, dict) and 'run' in found
    if whole and 'token' in found:
        kinds = dict(token=str, tag=str, machine=str, pid=int, silent=(int, float))
        whole = all(isinstance(found.get(key), kind) for key, kind in kinds.items())
        whole = whole and re.fullmatch('[0-9a-f]{32}', found['token']) and 0 < found['silent'] <= 3600
    if not whole:
        raise foreign(mark)
    return found


def foreign(path: Path) -> RunFolderError:
    return RunFolderError(f"'{path}' would be replaced, and no run has left it there. Take {ELSEWHERE}.")


def orphaned(about: dict) -> bool:
    """Whether the owner is on this machine, and its parent is no longer the one that started it."""
    if owner.gone(str(about.get('tag'))) is not False:
        return False
    return owner.parent(about['pid']) not in (about.get('parent'), None)


def who(about: dict) -> str:
    about = {'pid': '?', 'host': '?', 'started': 'a moment ago', **about}
    return f'process {about["pid"]} on {about["host"]}, since {about["started"]}'


def left_behind(claim: Path) -> bool:
    """Whether its maker has died on this machine; False where this process cannot know."""
    try:
        return owner.gone(claim.read_text()) is True
    except (OSError, ValueError):
        return False


def changed(mark: Path) -> int | None:
    """Time of change; the file is opened for it, as network file systems ask the server then."""
    try:
        with mark.open('rb') as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
