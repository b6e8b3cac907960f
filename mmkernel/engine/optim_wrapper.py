"""The optimizer step: precision, accumulation, clipping, and the flag that says whether the step was real."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.engine.clipping import check_clipping, check_for_shards, clip, whole_norm
from mmkernel.engine.encoder_shards import OwnParts
from mmkernel.engine.finite import FirstFailure
from mmkernel.engine.learning_rates import check_groups
from mmkernel.engine.optimizers import as_built, fuse, step_where
from mmkernel.engine.virtual_batch import Snapshot, moved_by_forward
from mmkernel.registry import OPTIM_WRAPPERS

PRECISIONS = {'float32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
SMALLEST_SCALE = 1e-4  # of float16's loss: a gradient that is not finite below it would not be at any


@OPTIM_WRAPPERS.register_module()
class PretrainOptimWrapper(OptimWrapper):
    """backward of loss / window -> gradient norm -> clip -> step, where every loss and gradient so far was finite.

    Nothing is read from the device. ``stepped``: this batch closed its accumulation window, so a step was attempted.
    ``real``: 0-dim bool on the device, whether the step counts. If it does not, weights, momentum and the buffers that the
    forward pass changed keep their bits, and all other state must obey ``real`` too. A loss that is not finite is final, and
    so is a gradient without float16's loss scaling: no later step is real, in any process, and ``check`` names the iteration.
    A gradient that overflows in float16 skips one step, unless the scale of the loss has fallen below 1e-4.

    ``precision``: 'float32', 'bfloat16' or, on a GPU and with loss scaling, 'float16'. ``accumulative_counts`` batches make
    one step; windows end with the epoch. ``clip_grad=dict(max_norm=1.)`` as in mmengine. LARS and torch's SGD, Adam and AdamW
    obey the flag; any other optimizer costs a read of the host in each step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        precision: str = 'float32',
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        check_numbers('optim_wrapper', whole=True, accumulative_counts=accumulative_counts)
        check_groups(optimizer)
        if clip_grad is not None:
            check_clipping(clip_grad)
        check_for_shards(optimizer, precision, clip_grad)
        # a copy: mmengine pops 'type' out of the dict, which belongs to the config
        super().__init__(optimizer, accumulative_counts, dict(clip_grad) if clip_grad else None)
        self.device_type = optimizer.param_groups[0]['params'][0].device.type
        if precision not in PRECISIONS:
            raise ValueError(f"precision='{precision}' is unknown; choose from {', '.join(PRECISIONS)}.")
        if precision == 'float16' and self.device_type == 'cpu':
            raise ValueError("precision='float16' needs a GPU, the model is on the CPU: use 'bfloat16' (--amp bf16).")
        self.precision = precision
        self.scaler = torch.amp.GradScaler(self.device_type) if precision == 'float16' else None
        self.obeys_flag = fuse(optimizer)
        if not self.obeys_flag:
            print_log(
                f'{type(optimizer).__name__} cannot skip a step by a flag on the device: the host waits for the device once in '
                "each step. LARS can, and torch's SGD, Adam and AdamW without dampening, foreach or fused=False.",
                logger='current', level=logging.WARNING,
            )  # fmt: skip
        self.stepped = False
        self.real: Tensor | None = None  # before the first attempt
        self.grad_norm: Tensor | None = None  # of the last attempt, before clipping; 0-dim on the device
        self.epoch_length: int | None = None  # set by the Runner; None: windows run over epoch ends
        self.parts = OwnParts([])  # of parameters that ``fsdp`` has spread over processes
        self.frozen: list[nn.Parameter] = []  # parameters that the next step skips; set by a hook
        self._failure, self._loss = FirstFailure(optimizer, self._put_back), None
        self.on_non_finite = self._failure.reports
        self._before: Snapshot | None = None  # of what forward passes change, from the beginning of the window
        self._changing: tuple[nn.Module, list[nn.Module]] | None = None

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward pass in the chosen precision, without gradient exchange inside an accumulation window."""
        if torch.is_grad_enabled() and self._before is None:
            if self._changing is None or self._changing[0] is not model:
                self._changing = model, moved_by_forward(model)
            self._before = Snapshot(self._changing[1])
        dtype = PRECISIONS[self.precision]
        autocast = torch.autocast(self.device_type, dtype, enabled=dtype is not None)
        with super().optim_context(model), autocast, self._failure.explained(self._inner_count):
            yield

    def update_params(self, loss: Tensor, backward: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """``backward(loss, gradient)`` replaces ``loss.backward(gradient)``; the loss is scaled for half precision."""
        self.stepped = False
        if not getattr(loss, 'requires_grad', False):
            text = f"There is no loss to train by: {loss!r}. Return {{'loss_...': a tensor with a gradient}}."
            raise ValueError(text)
        with self._failure.explained(self._inner_count):
            self._loss = loss.detach()
            self._failure.see(self._loss, self._inner_count, self._loss)
            self.backward(self.scale_loss(loss), by=backward)
            if self.should_update():
                self.step()
                self.zero_grad()
                self.stepped = True

    def backward(self, loss: Tensor, by: Callable[[Tensor, Tensor], None] | None = None) -> None:
        """After a failure NaN enters here: the sum of gradients over processes then tells all of them."""
        loss = self.scaler.scale(loss) if self.scaler else loss
        poison = self._failure.poison
        gradient = torch.ones_like(loss) if poison is None else (1 + poison).to(loss.dtype).expand_as(loss)
        (by or Tensor.backward)(loss, gradient)
        self._inner_count += 1

    @torch.no_grad()
    def step(self) -> None:
        for parameter in self.frozen:
            parameter.grad = None  # no decay and no momentum either
        self.parts.take_gradients()
        parameters = [p for group in self.optimizer.param_groups for p in group['params'] if p.grad is not None]
        norm = final = self._loss.new_zeros(())
        if parameters:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            self.grad_norm = norm = final = whole_norm(parameters)
            if self.scaler:  # a gradient that is not finite is final, unless a smaller scale of the loss may help
                final = torch.where(self.scaler.scale(torch.ones_like(norm)) < SMALLEST_SCALE, norm, 0.0)
        self._failure.see(final, self._inner_count - 1, self._loss)
        self.real = torch.isfinite(norm + self._failure.poison)
        if parameters:
            if given := self.clip_grad_kwargs:
                self.message_hub.update_scalar('train/grad_norm', clip(parameters, norm, self.clip_func, given))
            if self.obeys_flag:
                step_where(self.real, self.optimizer)
            elif self.real.item():
                self.optimizer.step()
            if self.scaler:
                self.scaler.update()
        if self._before is not None:
            self._before.put_back(unless=self.real)
            self._before = None

    def take_parts(self) -> None:
        self.parts = OwnParts(self.optimizer.param_groups)
        check_for_shards(self.optimizer, self.precision, self.clip_grad_kwargs)

    def zero_grad(self, **kwargs: Any) -> None:
        super().zero_grad(**kwargs)
        self.parts.drop_gradients()

    def check(self) -> None:
        """NonFiniteLossError in every process if an iteration of any was not finite. Every process must call it.

        The host waits for the device here, so do not call it in every step.
        """
        if error := self._failure.error():
            raise error

    def _put_back(self) -> None:
        """What forward passes have changed in a window that is still open."""
        if self._before is not None:
            self._before.put_back()

    @property
    def scale(self) -> Tensor | None:
        """What the loss is multiplied by for float16, a copy on the device; None for other precisions."""
        return self.scaler.scale(torch.ones((), device=self.device_type)) if self.scaler else None

    # Accumulation windows, counted within the epoch

    def initialize_count_status(self, model: nn.Module, init_counts: int, max_counts: int) -> None:
        self._inner_count, self._max_counts = init_counts, max_counts

    def window(self, count: int) -> tuple[bool, int]:
        """Whether the ``count``-th batch of the run, from 1, closes its window; and the window's size, short at an epoch's end."""
        size, length = self._accumulative_counts, max(self.epoch_length or self._max_counts, 0)
        done, short = (count - 1) % length + 1 if length else count, length % self._accumulative_counts
        return done % size == 0 or done == length, short if short and done > length - short else size

    def should_update(self) -> bool:
        return self.window(self._inner_count)[0]

    def should_sync(self) -> bool:
        return self.window(self._inner_count + 1)[0]

    def scale_loss(self, loss: Tensor) -> Tensor:
        return loss / self.window(self._inner_count + 1)[1]

    def state_dict(self) -> dict:
        state = super().state_dict()
        return {**state, 'loss_scaler': self.scaler.state_dict()} if self.scaler else state

    def load_state_dict(self, state_dict: dict) -> None:
        state = as_built(state_dict, self.optimizer)
        scaler = state.pop('loss_scaler', None)
        if self.scaler and scaler:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state)
