"""A process whose launcher has died ends: nobody else would, and it would keep its GPU and its work folder."""

import os
import signal
import threading
import time

from mmkernel.engine.last_words import say
from mmkernel.owner import born

SCRIPT = 'MMKERNEL_LAUNCHER'  # pid of tools/dist_train.sh, which starts torchrun, which starts the processes
LOOKS, GRACE = 0.5, 10.0  # seconds between two looks; and in which a process may save and end


def watch_launcher() -> None:
    """End this process when its parent has died, or the script that MMKERNEL_LAUNCHER names.

    With SIGTERM, so that it saves if it can, and with SIGKILL ``GRACE`` seconds later. At once if torchrun itself has died:
    with it goes the store in which processes agree where to stop. A thread looks, on every system. (A signal that Linux sends
    at the death of a parent comes at the death of the parent's *thread*.)
    """
    script = int(os.environ.get(SCRIPT, 0))
    began = born(script) if script else None
    if script and began is None:
        _end_torchrun(os.getppid())
        os._exit(128 + signal.SIGTERM)  # it died before this process began
    threading.Thread(target=_look, args=(os.getppid(), script, began), daemon=True).start()


def _look(parent: int, script: int, began: str | None) -> None:
    while os.getppid() == parent and (not script or born(script) == began):
        time.sleep(LOOKS)
    orphan = os.getppid() != parent
    who = 'The launcher' if orphan else 'tools/dist_train.sh'
    say(f'{who} has died: this process ends.')
    if orphan and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    if not orphan:
        _end_torchrun(parent)
    os.kill(os.getpid(), signal.SIGKILL)


def _end_torchrun(parent: int) -> None:
    """It would start the processes again (MAX_RESTARTS)."""
    if os.getppid() == parent and 'TORCHELASTIC_RUN_ID' in os.environ:
        os.kill(parent, signal.SIGKILL)
