"""Training state as plain tensors and plain Python values, so that ``torch.load(weights_only=True)`` needs no allow-list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer


def to_plain(value: Any, where: str = 'checkpoint') -> Any:
    """The same value of tensors (on the CPU), dicts, lists, tuples, str, int, float, bool, None, bytes.

    numpy arrays become tensors, numpy scalars Python ones. TypeError names the path of anything else: a checkpoint that
    only its writer's code can read is no checkpoint.
    """
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: to_plain(item, f'{where}.{key}') for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [to_plain(item, f'{where}[{i}]') for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    for kind in (bool, int, float, str, bytes):  # bool first: it is an int; subclasses (enums, str types) become plain
        if isinstance(value, kind):
            return kind(value)
    if value is None:
        return None
    raise TypeError(
        f'{where} is a {type(value).__name__}, which a checkpoint cannot hold. Give tensors, numbers, strings, lists or '
        'dicts (a component says what it saves in state_dict()).'
    )


def plain_message_hub(state: dict) -> dict:
    """``MessageHub.state_dict()`` with every history as a dict of two tensors instead of a pickled class."""
    histories = {
        name: dict(zip(('values', 'counts'), (torch.from_numpy(np.array(part)) for part in buffer.data), strict=True))
        for name, buffer in state['log_scalars'].items()
    }
    info = {k: v for k, v in state['runtime_info'].items() if k != 'cfg'}  # the text stands in ``meta`` already
    kept = {k: bool(v) for k, v in state['resumed_keys'].items() if k in histories or k in info}
    return dict(log_scalars=histories, runtime_info=to_plain(info, 'message_hub'), resumed_keys=kept)


def message_hub_state(plain: dict) -> dict:
    """Inverse of ``plain_message_hub``."""
    buffers = {
        name: HistoryBuffer(history['values'].numpy(), history['counts'].numpy())
        for name, history in plain['log_scalars'].items()
    }
    return {**plain, 'log_scalars': buffers}
