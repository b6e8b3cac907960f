"""Logged values: they stay on the device until one of them is read, and a bounded number of them is kept."""

import math
from collections import deque
from collections.abc import Iterable
from functools import partialmethod
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import HistoryBuffer, MessageHub
from torch import Tensor

KEPT = 100  # values of a name, where the log asks for no wider window


class History(HistoryBuffer):
    """The last values of one name; and the number, sum, weight, least and largest of all values."""

    def __init__(self, hub: 'LogHub') -> None:
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

    def _over(self, name: str, window_size: int | None = None) -> float:
        if self.waiting:
            self.hub.read()
        number, total, weight, least, largest = self.whole
        if window_size is None or window_size >= number:
            return dict(mean=total / weight, min=least, max=largest)[name]
        return getattr(HistoryBuffer, name)(self, window_size)

    mean, min, max = partialmethod(_over, 'mean'), partialmethod(_over, 'min'), partialmethod(_over, 'max')

    def state_dict(self) -> dict[str, Tensor]:
        values, counts = map(torch.from_numpy, self.data)
        return dict(values=values, counts=counts, whole=torch.tensor(self.whole, dtype=torch.float64))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Files of earlier versions hold every value, and no ``whole``."""
        for value, count in zip(state['values'].tolist(), state['counts'].tolist(), strict=True):
            self.update(value, count)
        self.whole = state['whole'].tolist() if 'whole' in state else self.whole


class LogHub(MessageHub):
    """mmengine's MessageHub with a ``History`` for each name, which reads a tensor only when somebody asks for a value.

    The first reader (the log at its interval, a hook) brings the waiting values of all names to the host, in one transfer
    for each device and dtype. At most ``kept`` values of a name wait.
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
            if not isinstance(value, (int, float)) and math.prod(getattr(value, 'shape', [0])) != 1:
                raise ValueError(f"What is logged as '{key}' is one number, got {value!r}.")
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
        """Tensors and plain values, without the text of the config, which is in the ``meta`` of a checkpoint."""
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


LogHub._instance_dict = MessageHub._instance_dict  # MessageHub.get_current_instance() is the hub of the run


def kept_values(log_processor: Any, hooks: Iterable[Hook], epoch_length: int) -> int:
    """How many iterations the log looks back: its interval or its widest window. 'global' needs no values."""
    windows = [log_processor.window_size, *(each.get('window_size') for each in log_processor.custom_cfg)]
    windows += [min(hook.interval, epoch_length) for hook in hooks if isinstance(hook, LoggerHook)]
    return max([KEPT, *(n for n in windows if isinstance(n, int)), epoch_length if 'epoch' in windows else 0])
