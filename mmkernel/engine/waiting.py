"""How much of a run is spent waiting for data, in the log; and what to change where it is much."""

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from mmkernel.engine.hooks import dataset_of
from mmkernel.evaluation.features import usable_cores

MUCH = 0.2  # of the time: beyond it the log says what to change


class Waiting:
    """share = time without work because no batch was there / time of the steps, since it was last asked for.

    On a CPU that is the time in ``next(loader)``. On a GPU the host runs ahead: while it waits there, the device may still
    be busy with earlier steps. So there it is the time between two events on the device, one after the last work of a step
    and one before the first of the next, and at most the time in ``next(loader)``. Events are asked whether they are over,
    never waited for; those that are not yet wait for a later look.

    The first batch of a run, for which workers are started, does not count, nor what happens between epochs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.started = device, False
        self.pending: deque[tuple[float, Any, Any]] = deque()  # seconds in next(loader), events before and after
        self.waited = self.whole = self.pace = 0.0
        self.steps, self.mark = 0, time.perf_counter()

    def batches(self, loader: Iterable) -> Iterator:
        """Those of ``loader``, timed."""
        self.mark, before = time.perf_counter(), self.event()
        for batch in loader:
            seconds = self.lap()
            if self.started:
                self.pending.append((seconds, before, self.event()))
                self.whole += seconds
            self.started = True
            self.look()
            self.steps += 1
            yield batch
            self.whole += self.lap()
            before = self.event()

    def lap(self) -> float:
        """Seconds since the last call."""
        last, self.mark = self.mark, time.perf_counter()
        return self.mark - last

    def event(self) -> Any:
        if self.device.type != 'cuda':
            return None
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def look(self) -> None:
        """Add up the waits whose events are over."""
        while self.pending and (self.pending[0][2] is None or self.pending[0][2].query()):
            seconds, before, after = self.pending.popleft()
            self.waited += seconds if after is None else min(seconds, before.elapsed_time(after) / 1000)

    def share(self) -> float:
        """Of the time since the last call; to be asked for during a step. ``pace``: the steps of a second in it."""
        self.look()
        waited, whole = self.waited, self.whole + self.lap()
        self.pace = self.steps / whole if whole else 0.0
        self.waited = self.whole = self.steps = 0
        return waited / whole if whole else 0.0


def advice(runner: Any, share: float) -> str:
    """What to change, by what the run uses."""
    loader, data, on_cuda = runner.train_dataloader, dataset_of(runner), runner.train_loop.waiting.device.type == 'cuda'
    cores, local = usable_cores(), int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    workers, room = loader.num_workers, max(cores // local - 1, 1)
    steps = []
    if workers < room:
        machine = f'{cores} cores' + (f' for {local} processes' if local > 1 else '')
        steps.append(f'num_workers={room} (it is {workers}; this machine has {machine})')
    if workers and not loader.persistent_workers:
        steps.append('persistent_workers=True, so that workers are not started again for each epoch')
    if workers and loader.prefetch_factor < 4:
        steps.append(f'prefetch_factor=4 (it is {loader.prefetch_factor}), which evens out slow batches')
    if on_cuda and (getattr(data, 'exact', False) or getattr(data, 'views_on', '') == 'worker'):
        steps.append("dataset.exact=False and dataset.views_on='auto', which move most of the work to the GPU")
    text = f'{100 * share:.0f} % of the time goes by waiting for data.'
    if steps:
        text += f' Set in train_dataloader: {"; ".join(steps)}.'
    else:
        text += ' All cores make views already: smaller image files, fewer or smaller views, or more cores would help.'
    config = Path(runner.work_dir) / 'config.py'
    return f'{text} What the loader alone delivers: mmkernel data check {config}'
