"""Do one step of a run again, in one process, and look at every value of it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkernel.engine.finite import extremes
from mmkernel.engine.first_bad import Finding, FirstBad
from mmkernel.engine.launch import set_numerics
from mmkernel.engine.optim_wrapper import PRECISIONS
from mmkernel.engine.process_state import set_random_state
from mmkernel.engine.step_data import Piece, StepData
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.engine.wrapping import place_model, place_views
from mmkernel.models import build_model
from mmkernel.zoo.loading import load_weights


@dataclass
class Replayed:
    """What came of the step in one precision."""

    precision: str
    found: Finding | None  # None: every value is finite
    losses: list[dict[str, float]]  # by part, of each batch of the accumulation window that was tried
    micro_batch: int | None = None  # in the window, of the bad value
    error: str | None = None  # that ended the step

    @property
    def bad(self) -> bool:
        return self.found is not None or self.error is not None or not all(map(_finite, self.losses))


class Replay:
    """The step of a file of ``read_stop``, whose images are loaded once; ``run(precision)`` does it.

    Processes become one: their rows are joined in rank order. Batch norm sees the rows that it saw in the run: those of each
    process, or with SyncBN those of all. ``rank``: of that process alone. Errors: ValueError, CheckpointError for data or a model
    that is not that of the file.
    """

    def __init__(self, cfg: Config, content: dict, records: list[dict], device: str, rank: int | None = None) -> None:
        self.cfg, self.content, self.meta, self.device = cfg, content, content['meta'], torch.device(device)
        self.ranks = [record['rank'] for record in records if rank in (None, record['rank'])]
        if not self.ranks:
            text = ', '.join(str(record['rank']) for record in records)
            raise ValueError(f'--rank {rank}: there are records of the processes {text}.')
        set_numerics(cfg)
        with DefaultScope.overwrite_default_scope('mmkernel'):
            self.data = StepData(cfg, self.meta, [record for record in records if record['rank'] in self.ranks])
            place_views(self.data.dataset, self._model())
            self.batches = [[self.data.batch(piece) for piece in pieces] for pieces in self.data.window]

    def run(self, precision: str) -> Replayed:
        """'float32', 'float64', 'bfloat16', 'float16': the last two under autocast, as a run does."""
        with DefaultScope.overwrite_default_scope('mmkernel'):
            model = self._model().train()
        place_views(self.data.dataset, model)
        if precision == 'float64':
            model.double().data_preprocessor.register_forward_hook(lambda *hooked: _widened(hooked[-1]))
        done = Replayed(precision, None, [])
        with FirstBad(model) as look:
            step = _Step(look, precision, self.device.type, self.meta)
            for i, (pieces, batches) in enumerate(zip(self.data.window, self.batches, strict=True)):
                try:
                    done.losses += self._attempt(model, step, pieces, batches)
                except torch.OutOfMemoryError:
                    raise
                except (ValueError, RuntimeError, ArithmeticError) as error:  # as a decomposition of NaN
                    done.error = f'{type(error).__name__}: {error}'.splitlines()[0]
                done.found = look.found
                if done.bad:
                    done.micro_batch = i
                    return done
        done.found = norm_of_gradients(model)
        return done

    def _attempt(self, model: nn.Module, step: '_Step', pieces: list[Piece], batches: list[dict]) -> list[dict]:
        """Forward and backward pass of one batch of all processes, as the loop does; its losses by part."""
        with _at(model, [piece.random_state for piece in pieces]):
            if len(batches) > 1 and hasattr(model, 'roots'):
                found = [virtual_step(model, [dict(batch) for batch in batches], step)]
            else:
                step.parts = len(batches)  # a mean over the rows of each process, whose gradients are averaged
                found = [model.train_step(dict(batch), step) for batch in batches]
        return [{name: value.item() for name, value in losses.items()} for losses in found]

    def _model(self) -> nn.Module:
        model = build_model(self.cfg)
        getattr(getattr(model, 'head', None), 'prepare', bool)(self.meta['images'])  # as ClusterHook does
        load_weights(model, self.content['state_dict'], source='the file of the step')
        return place_model(model, self.cfg, self.device)


class _Step:
    """Stands where the optimizer's wrapper stands: the backward pass if all is finite so far, and no step."""

    def __init__(self, look: FirstBad, precision: str, device: str, meta: dict) -> None:
        self.look, self.dtype, self.device = look, PRECISIONS.get(precision), device
        self.window, self.parts = meta['window'], 1
        self.scale = meta['scale'] if precision == 'float16' else 1.0

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with torch.autocast(self.device, self.dtype, enabled=self.dtype is not None):
            yield

    def update_params(self, loss: Tensor, backward: Callable[[Tensor, Tensor], None] | None = None) -> None:
        self.look.watch(loss)
        if self.look.found is None and torch.isfinite(loss):
            loss = loss / (self.window * self.parts) * self.scale
            (backward or Tensor.backward)(loss, torch.ones_like(loss))


@contextmanager
def _at(model: nn.Module, states: Sequence[dict | None]) -> Iterator[None]:
    """Before the first piece of each process is prepared, its random state, and counters as they are now; so in a second pass."""
    count = 0
    counters = [(part, name, getattr(part, name)) for part in model.modules() for name in getattr(part, 'counters', ())]

    def set_state(module: nn.Module, args: Any) -> None:
        nonlocal count
        if (state := states[count % len(states)]) is not None:
            set_random_state(state)
            for part, name, value in counters:
                setattr(part, name, value)
        count += 1

    handle = model.data_preprocessor.register_forward_pre_hook(set_state)
    try:
        yield
    finally:
        handle.remove()


def norm_of_gradients(model: nn.Module) -> Finding | None:
    """The parameter with the largest gradient where each is finite and the norm of all is not."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    if not gradients or torch.isfinite(torch.nn.utils.get_total_norm(gradients.values())):
        return None
    name = max(gradients, key=lambda name: gradients[name].abs().max().nan_to_num(torch.inf))
    path, _, own = name.rpartition('.')
    found = {f'gradient of {own}': extremes(gradients[name]), own: extremes(model.get_parameter(name))}
    return Finding('norm', path, type(model.get_submodule(path)).__name__, 'the norm of the gradient', parameters=found)


def _finite(losses: dict[str, float]) -> bool:
    return all(abs(value) < float('inf') for name, value in losses.items() if 'loss' in name)


def _widened(data: dict) -> dict:
    return {**data, 'inputs': [view.double() if view.is_floating_point() else view for view in data['inputs']]}
