"""Counts, on a CPU, what would make the host wait for a GPU: values read back, and copies that are waited for.

A CPU has one memory; here it counts as two. On the device are the tensors that the meter is given, what is made with
``device=x.device`` or sent with ``x.to(y.device)``, and what any operator makes of those; all else, a loader's batch for
instance, is the host's. A copy that has ``non_blocking=True`` is not waited for. What one operator does inside counts where
it reads the host by definition; the one exception is the check of ``torch.linalg.eigh``.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmkernel.engine.hooks import unwrap

# operators whose result the host must know: a number, or how many rows there are
_READS = frozenset(
    '_local_scalar_dense equal allclose nonzero masked_select _unique _unique2 unique_dim unique_consecutive bincount '
    '_linalg_check_errors linalg_cholesky linalg_inv linalg_solve linalg_svd'.split()
)
_TO_HOST = {Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__repr__}  # these reach no operator on a CPU
_ROOT = Path(__file__).resolve().parents[1]


class HostReads(TorchFunctionMode):
    """``reads``: how often each happened, by what and where, while ``counting``. ``exchanges``: collectives of host tensors."""

    def __init__(self, on_device: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.reads: Counter[str] = Counter()
        self.exchanges: Counter[str] = Counter()
        self.counting = True
        self._storages: dict[int, StorageWeakRef] = {}
        self._operators = _Operators(self)
        self.mark(list(on_device))

    def __enter__(self) -> HostReads:
        self._operators.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._operators.__exit__(*error)

    def mark(self, value: Any) -> Any:
        """Every tensor in ``value`` lies on the device."""
        for x in _tensors(value):
            if not self.holds(x):
                storage = StorageWeakRef(x.untyped_storage())  # keeps the key from being used again
                self._storages[storage.cdata] = storage
        return value

    def holds(self, x: Any) -> bool:
        return isinstance(x, Tensor) and x.untyped_storage()._cdata in self._storages

    def count(self, what: str, among: str = 'reads') -> None:
        if self.counting:
            getattr(self, among)[f'{what}: {_place()}'] += 1

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        x = args[0] if args else None
        if func in _TO_HOST and self.holds(x):
            self.count(func.__name__)
        if func is Tensor.cpu or func is Tensor.to:
            return self._moved(func, x, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(kwargs.get('device'), torch.device) or (func is Tensor.new_tensor and self.holds(x)):
            if func in (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor):
                self.count(f'{func.__name__} on the device')
            self.mark(result)
        return result

    def _moved(self, func: Any, x: Tensor, args: tuple, kwargs: dict) -> Tensor:
        """A copy where x changes sides, as it would be with two memories."""
        named = kwargs.get('device', kwargs.get('other', args[1] if len(args) > 1 else None))
        to_host = func is Tensor.cpu or named == 'cpu'
        to_device = isinstance(named, torch.device) or self.holds(named)
        waits = not (kwargs.get('non_blocking') or any(a is True for a in args[2:3]))
        if self.holds(x) == to_device or not (to_host or to_device):
            return func(*args, **kwargs)
        if waits:
            self.count(f'{func.__name__}, {"from" if to_host else "onto"} the device')
        with self._operators.paused():
            moved = func(*args, **kwargs).clone()
        return self.mark(moved) if to_device else moved


class _Operators(TorchDispatchMode):
    """What reaches the dispatcher: on the device is what is made of something there."""

    def __init__(self, meter: HostReads) -> None:
        super().__init__()
        self.meter, self.off = meter, False

    def paused(self) -> Any:
        return torch.utils._python_dispatch._disable_current_modes()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, meter = kwargs or {}, self.meter
        name, here = func._schema.name.split('::')[1], [meter.holds(x) for x in _tensors((args, kwargs))]
        result = func(*args, **kwargs)
        if func._schema.name.startswith('c10d::') and here and not any(here):
            meter.count(name, 'exchanges')
        if not any(here):
            return result
        if name in _READS or (name == 'repeat_interleave' and kwargs.get('output_size') is None):
            meter.count(name)
        if name in ('index', 'index_put', 'index_put_', '_index_put_impl_'):
            self._indexed(name, args)
        if name == 'copy_' and not here[-1] and not (kwargs.get('non_blocking') or args[2:3] == (True,)):
            meter.count('copy_ from the host')
        written = [value for value, a in zip(args, func._schema.arguments, strict=False) if a.is_write]
        meter.mark((result, written))
        return result

    def _indexed(self, name: str, args: tuple) -> None:
        for index in args[1]:
            if index is not None and index.dtype in (torch.bool, torch.uint8):
                self.meter.count(f'{name} by a mask')
            elif index is not None and not self.meter.holds(index):
                self.meter.count(f'{name} by an index of the host')


class Meter(Hook):
    """Counts two whole iterations, with all that hooks do around them; what is made once is made in the first one."""

    priority = 0

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            model = unwrap(runner.model)
            self.meter = HostReads([*model.parameters(), *model.buffers()])
            self.meter.__enter__()
        self.meter.counting = batch_idx in (1, 2)
        if batch_idx == 3:
            self.meter.__exit__(None, None, None)


def between_logs(cfg: Any) -> Any:
    """``cfg`` with a meter, and changed so that its first steps lie between two log intervals and use what is used later."""
    for hook in ('logger', 'monitor'):
        if cfg.default_hooks.get(hook):
            cfg.default_hooks[hook].interval = 1000
    if 'queue' in cfg.default_hooks:
        cfg.default_hooks.queue.start_epoch = 0
    if 'warmup_epochs' in (cfg.get('param_scheduler') or {}):
        cfg.param_scheduler.warmup_epochs = 0
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), Meter()]
    return cfg


def metered(runner: Any) -> tuple[dict[str, int], dict[str, int]]:
    """What was read, and what hosts exchanged, in those two steps of a run."""
    meter = next(hook.meter for hook in runner.hooks if isinstance(hook, Meter))
    return dict(meter.reads), dict(meter.exchanges)


def _tensors(value: Any) -> list[Tensor]:
    return [x for x in tree_leaves(value) if isinstance(x, Tensor)]


def _place() -> str:
    """The last lines of ours, and the library's that lies nearest."""
    frames = [f for f in traceback.extract_stack() if f.filename != __file__ and '/torch/' not in f.filename]
    last = [f for f in frames if Path(f.filename).is_relative_to(_ROOT) and '/.venv/' not in f.filename][-3:]
    if frames and frames[-1] not in last:
        last.append(frames[-1])
    return ' < '.join(f'{"/".join(Path(f.filename).parts[-2:])}:{f.lineno} {f.name}' for f in reversed(last))
