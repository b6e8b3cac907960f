"""Agreement of processes without a collective: now and then, process 0 says a number to all, at one step of the run."""

import itertools
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store
from torch.distributed.distributed_c10d import _get_default_store

from mmkernel.distributed import rank, world_size

MOST_STEPS = 100  # between two polls: what is asked waits no longer when steps become slow

_made = itertools.count()  # every process makes the same ones, in one order


class Poll:
    """``poll(choose)`` after each step of every process: what ``choose()`` gives in process 0, in all, about once a second.

    None in between. Process 0 writes the number, and in how many steps it will be asked again, into the store of
    torch.distributed; the others wait for it there. No device is used or waited for. One process is asked in every step.
    """

    def __init__(self, name: str, seconds: float = 1.0) -> None:
        self.name, self.seconds = (
            f'mmkernel/{name}/{next(_made)}',
            seconds,
        )  # a later run in this process hears none of it
        self.polls = self.passed = self.last = 0  # polls done; steps since the last one, and its time
        self.next = 1  # in how many steps

    def __call__(self, choose: Callable[[], int]) -> int | None:
        if world_size() == 1:
            return choose()
        self.passed += 1
        if self.passed < self.next:
            return None
        key, store = f'{self.name}/{self.polls}', _get_default_store()
        number, self.next = self._said(store, key, choose) if rank() == 0 else self._heard(store, key)
        self.polls, self.passed = self.polls + 1, 0
        return number

    def _said(self, store: Store, key: str, choose: Callable[[], int]) -> tuple[int, int]:
        now = time.monotonic()
        pace = max(now - self.last, 1e-6) / self.passed  # seconds of a step, from poll to poll
        steps = min(max(int(self.seconds / pace), 1), MOST_STEPS) if self.polls else 1
        self.last, number = now, int(choose())
        store.set(key, f'{number} {steps}')
        return number, steps

    def _heard(self, store: Store, key: str) -> tuple[int, int]:
        store.wait([key], timedelta(hours=12))  # process 0 may be writing a file; if it has died, the launcher ends all
        number, steps = map(int, store.get(key).split())
        if store.add(f'{key}/read', 1) == world_size() - 1:  # the last reader
            store.delete_key(key)
            store.delete_key(f'{key}/read')
        return number, steps
