"""What is logged: values wait on the device until somebody reads one of them, and what is kept of them is bounded."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.hooks import RuntimeInfoHook as _RuntimeInfoHook
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.visualization import Visualizer
from torch import Tensor

from mmkernel.evaluation.report import set_aside
from mmkernel.registry import HOOKS, VISUALIZERS

KEPT = 100  # values of a name, where the log asks for no wider window


class History(HistoryBuffer):
    """The last values of one name, and number, sum, weight, least and largest of all that there ever were.

    The face of mmengine's HistoryBuffer. A window over the whole run is exact; a shorter one reaches as far back as values
    are kept.
    """

    def __init__(self, hub: LogHub) -> None:
        self.hub, self.waiting, self.kept = hub, 0, deque(maxlen=hub.kept)  # (value, count)
        self.whole = [0, 0.0, 0, math.inf, -math.inf]  # number, sum, weight, least, largest

    def update(self, log_val: float, count: int = 1) -> None:
        self.kept.append((log_val, count))
        number, total, weight, least, largest = self.whole
        self.whole = [number + 1, total + log_val, weight + count, min(least, log_val), max(largest, log_val)]

    @property
    def data(self) -> tuple[np.ndarray, np.ndarray]:
        if self.waiting:
            self.hub.read()
        values, counts = zip(*self.kept, strict=True) if self.kept else ((), ())
        return np.array(values), np.array(counts)

    _log_history = property(lambda self: self.data[0])  # what HistoryBuffer and statistics of users look at
    _count_history = property(lambda self: self.data[1])

    def statistics(self, method_name: str, *args: Any, **kwargs: Any) -> Any:
        own = method_name in ('mean', 'min', 'max')
        return getattr(self, method_name)(*args, **kwargs) if own else super().statistics(method_name, *args, **kwargs)

    def _over(self, name: str, window: int | None, whole: Callable[[], float]) -> float:
        if self.waiting:
            self.hub.read()
        every = window is None or window >= self.whole[0]
        return whole() if every else getattr(HistoryBuffer, name)(self, window)

    def mean(self, window_size: int | None = None) -> float:
        return self._over('mean', window_size, lambda: self.whole[1] / self.whole[2])

    def min(self, window_size: int | None = None) -> float:
        return self._over('min', window_size, lambda: self.whole[3])

    def max(self, window_size: int | None = None) -> float:
        return self._over('max', window_size, lambda: self.whole[4])

    def state_dict(self) -> dict[str, Tensor]:
        values, counts = map(torch.from_numpy, self.data)
        return dict(values=values, counts=counts, whole=torch.tensor(self.whole, dtype=torch.float64))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Files of earlier versions hold every value, and no ``whole``."""
        for value, count in zip(state['values'].tolist(), state['counts'].tolist(), strict=True):
            self.update(value, count)
        if 'whole' in state:
            self.whole = state['whole'].tolist()


class LogHub(MessageHub):
    """mmengine's MessageHub with a ``History`` for each name. A value that is a tensor is not read when it is given.

    The first reader (the log at its interval, a hook that looks at a value) brings the waiting values of all names to the
    host, in one transfer for each device and type of number. No name waits for more than ``kept`` values.
    """

    def __init__(self, name: str, kept: int = KEPT) -> None:
        super().__init__(name)
        self.kept = kept
        self._rows: list[tuple[list, Tensor]] = []  # (histories and counts, their values of one moment), oldest first

    def update_scalar(self, key: str, value: Any, count: int = 1, resumed: bool = True) -> None:
        self.update_scalars({key: dict(value=value, count=count)}, resumed)

    @torch.no_grad()
    def update_scalars(self, log_dict: dict, resumed: bool = True) -> None:
        """{name: number, tensor or array of one element, or dict(value=, count=)}; the tensors of a call cost one launch."""
        together: dict[Any, tuple[list, list]] = {}
        for key, given in log_dict.items():
            value, count = (given['value'], given.get('count', 1)) if isinstance(given, dict) else (given, 1)
            if not isinstance(value, (int, float)) and (not hasattr(value, 'shape') or math.prod(value.shape) != 1):
                what = f'shape {tuple(value.shape)}' if hasattr(value, 'shape') else type(value).__name__
                raise ValueError(f"What is logged as '{key}' is one number, got {what}.")
            self._set_resumed_keys(key, resumed)
            if key not in self._log_scalars:
                self._log_scalars[key] = History(self)
            history = self._log_scalars[key]
            if not isinstance(value, Tensor):
                value = value if isinstance(value, (int, float)) else value.item()
                if not history.waiting:
                    history.update(value, count)
                    continue
                value = torch.tensor(value, dtype=torch.float64)  # after those that wait
            histories, values = together.setdefault((value.device, value.dtype), ([], []))
            histories.append((history, count))
            values.append(value.detach().reshape(()))
            history.waiting += 1
        for histories, values in together.values():
            self._rows.append((histories, torch.stack(values)))  # a copy: what they are of may be written to in place
        if any(history.waiting >= self.kept for histories, _ in together.values() for history, _ in histories):
            self.read()

    def read(self) -> None:
        """Bring every waiting value to the host."""
        rows, self._rows = self._rows, []
        kinds: dict[Any, list[Tensor]] = {}
        for _, row in rows:
            kinds.setdefault((row.device, row.dtype), []).append(row)
        numbers = {kind: iter(torch.cat(alike).tolist()) for kind, alike in kinds.items()}
        for histories, row in rows:
            for history, count in histories:
                history.update(next(numbers[row.device, row.dtype]), count)
                history.waiting = 0

    def state_dict(self) -> dict:
        """Tensors and plain values; the text of the config stands in the ``meta`` of a checkpoint already."""
        kept = {key for key, resumed in self._resumed_keys.items() if resumed and key != 'cfg'}
        scalars = {key: history.state_dict() for key, history in self._log_scalars.items() if key in kept}
        info = {key: value for key, value in self._runtime_info.items() if key in kept}
        return dict(log_scalars=scalars, runtime_info=info, resumed_keys=dict.fromkeys([*scalars, *info], True))

    def load_state_dict(self, state_dict: dict) -> None:
        for key, state in state_dict['log_scalars'].items():
            self._log_scalars[key] = History(self)
            self._log_scalars[key].load_state_dict(state)
        self._runtime_info.update(state_dict['runtime_info'])
        self._resumed_keys.update(state_dict['resumed_keys'])


LogHub._instance_dict = MessageHub._instance_dict  # who asks for the current MessageHub gets the one of the run


def kept_values(log_processor: Any, hooks: Iterable[Hook], epoch_length: int) -> int:
    """How far back the log looks, in iterations: its interval and its widest window. 'global' needs no values."""
    windows = [log_processor.window_size, *(each.get('window_size') for each in log_processor.custom_cfg)]
    windows += [min(hook.interval, epoch_length) for hook in hooks if isinstance(hook, LoggerHook)]
    return max([KEPT, *(n for n in windows if isinstance(n, int)), epoch_length if 'epoch' in windows else 0])


def build_logger(name: str, folder: str, level: str) -> MMLogger:
    """To the console, and to a file in ``folder`` that has its name."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    logger = MMLogger.get_instance(name, log_level=level, log_file=str(path / f'{path.name}.log'), file_mode='a')
    for handler in logger.handlers:  # mmengine's LoggerHook repeats the name of the run after each epoch
        handler.addFilter(lambda record: not str(record.msg).startswith('Exp name: '))
    return logger


def build_visualizer(given: Any, name: str, folder: str) -> Visualizer:
    """Where the config names one folder for the logs of all runs, those of an earlier one are kept as NAME.old."""
    if isinstance(given, Visualizer):
        return given
    settings = {'type': 'Visualizer', 'vis_backends': [dict(type='LocalVisBackend')], 'name': name, 'save_dir': folder}
    settings |= given or {}
    for file in ('config.py', 'scalars.json') if is_main_process() else ():
        if (path := Path(settings['save_dir']) / 'vis_data' / file).exists():
            set_aside(path)
    return VISUALIZERS.build(settings)


@HOOKS.register_module(force=True)
class RuntimeInfoHook(_RuntimeInfoHook):
    """mmengine's, which gives the values of an iteration to the hub in one call."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        runner.message_hub.update_scalars({f'train/{key}': value for key, value in (outputs or {}).items()})
