"""The one owner of the optimizer step: precision, accumulation, the finite check, and whether a real step happened."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmkernel.registry import OPTIM_WRAPPERS

PRECISIONS = {'float32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}

LIKELY_CAUSES = (
    'Likely causes: a learning rate that is too large or lacks warm-up (check lr, lr_scaling, param_scheduler), '
    'half precision (try --cfg-options optim_wrapper.precision=float32), or images and normalisation with bad values.'
)


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; nothing of this iteration has reached the weights."""


@OPTIM_WRAPPERS.register_module()
class PretrainOptimWrapper(OptimWrapper):
    """check finite -> backward of loss / window -> clip -> step; ``stepped`` says whether the weights moved.

    ``precision``: 'float32', 'bfloat16' (CPU or GPU) or 'float16' (GPU, with loss scaling). ``accumulative_counts``
    batches make one step; windows end with the epoch, so that no gradient is pending when a checkpoint is written.
    ``clip_grad=dict(max_norm=1.)`` as in mmengine. Errors: NonFiniteLossError before backward; ValueError for float16
    on a CPU or an unknown precision.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        precision: str = 'float32',
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        # mmengine pops 'type' out of the dict it is given, which is the config's
        super().__init__(optimizer, accumulative_counts, dict(clip_grad) if clip_grad else None)
        if precision not in PRECISIONS:
            raise ValueError(f"precision='{precision}' is unknown; choose from {', '.join(PRECISIONS)}.")
        self.device_type = optimizer.param_groups[0]['params'][0].device.type
        if precision == 'float16' and self.device_type == 'cpu':
            raise ValueError(
                "precision='float16' needs a GPU, but the model is on the CPU. Use --amp bf16 "
                "(optim_wrapper.precision='bfloat16') or drop --amp."
            )
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device_type) if precision == 'float16' else None
        self.stepped = False
        self.epoch_length: int | None = None  # set by the Runner; None: windows run over epoch ends
        self.frozen: list[nn.Parameter] = []  # the next step leaves them alone; a hook says which
        self.on_non_finite: list[Callable[[float], str]] = []  # hooks add what they know to the error

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward pass in the chosen precision, without gradient exchange inside an accumulation window."""
        dtype = PRECISIONS[self.precision]
        with super().optim_context(model), torch.autocast(self.device_type, dtype, enabled=dtype is not None):
            yield

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: dict | None = None,
        zero_kwargs: dict | None = None,
        backward: Callable[[Tensor], None] | None = None,
    ) -> None:
        """``backward``: what stands for ``loss.backward()``; it gets the loss as scaled for half precision."""
        self.stepped = False
        self._check_finite(loss)
        self.backward(self.scale_loss(loss), by=backward)
        if self.should_update():
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss).all():
            value = float(loss.detach())
            message = f'The loss of iteration {self._inner_count} is {value}, expected a finite number. {LIKELY_CAUSES}'
            raise NonFiniteLossError(' '.join([message, *(report(value) for report in self.on_non_finite)]))

    def backward(self, loss: Tensor, by: Callable[[Tensor], None] | None = None, **kwargs: Any) -> None:
        loss = self.scaler.scale(loss) if self.scaler else loss
        if by is None:
            super().backward(loss, **kwargs)
            return
        by(loss)
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        for parameter in self.frozen:
            parameter.grad = None  # no decay and no momentum either
        if self.scaler is None:
            super().step(**kwargs)
            self.stepped = True
            return
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()
        self.stepped = self.scaler.get_scale() >= scale  # the scale falls exactly when the step was skipped

    # Accumulation windows, counted within the epoch.

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        self._inner_count, self._max_counts = init_counts, max_counts

    def _position(self, count: int) -> tuple[int, int]:
        """(batches done since the epoch began, batches of the epoch) after ``count`` batches in all."""
        length = self.epoch_length or self._max_counts
        if length < 1:
            return count, 0
        return (count - 1) % length + 1 if count else 0, length

    def _closes_window(self, count: int) -> bool:
        done, length = self._position(count)
        return done % self._accumulative_counts == 0 or done == length

    def should_update(self) -> bool:
        return self._closes_window(self._inner_count)

    def should_sync(self) -> bool:
        return self._closes_window(self._inner_count + 1)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """loss / size of the window that this batch is in (the last one of an epoch may be short)."""
        done, length = self._position(self._inner_count + 1)
        window = self._accumulative_counts
        remainder = length % window
        return loss / (remainder if remainder and done > length - remainder else window)

    def state_dict(self) -> dict:
        state = super().state_dict()
        return {**state, 'loss_scaler': self.scaler.state_dict()} if self.scaler else state

    def load_state_dict(self, state_dict: dict) -> None:
        state = dict(state_dict)
        scaler = state.pop('loss_scaler', None)
        if self.scaler and scaler:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state)
