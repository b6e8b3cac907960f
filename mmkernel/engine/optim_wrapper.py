"""The one owner of the optimizer step: precision, accumulation, clipping, and whether the step was real."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from mmkernel.checks import check_numbers
from mmkernel.engine.clipping import check_clipping, clip
from mmkernel.engine.finite import LIKELY_CAUSES, FirstFailure, NonFiniteLossError, all_finite, non_finite_argument
from mmkernel.engine.fused import as_built, fuse, start_momentum
from mmkernel.engine.learning_rates import check_groups
from mmkernel.engine.snapshot import Snapshot, moved_by_forward
from mmkernel.registry import OPTIM_WRAPPERS

PRECISIONS = {'float32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
SMALLEST_SCALE = 1e-4  # of float16's loss: a gradient that is not finite below it would not be at any


@OPTIM_WRAPPERS.register_module()
class PretrainOptimWrapper(OptimWrapper):
    """backward of loss / window -> gradient norm -> clip -> step, where every loss and gradient so far was finite.

    Nothing is read from the device. ``stepped``: this batch closed its accumulation window, so a step was attempted.
    ``real``: 0-dim bool on the device, whether the attempt counts. Where it does not, weights, momentum and the buffers that
    the forward pass changed keep their bits, and whatever else changes state asks ``real``. A loss that is not finite, or
    without float16's loss scaling a gradient, is final: no step after it is real, in any process, and ``check`` says which
    it was. A gradient that overflowed in float16 skips its step alone, until the scale of the loss has fallen below 1e-4.

    ``precision``: 'float32', 'bfloat16' (CPU or GPU) or 'float16' (GPU, with loss scaling). ``accumulative_counts``
    batches make one step; windows end with the epoch, so that no gradient is pending when a checkpoint is written.
    ``clip_grad=dict(max_norm=1.)`` as in mmengine. Optimizers: LARS and torch's SGD, Adam and AdamW obey the flag; any other
    costs a read of the host in each step. Errors: ValueError for float16 on a CPU or an unknown precision.
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
        self.obeys_flag = fuse(optimizer)
        if not self.obeys_flag:
            print_log(
                f'{type(optimizer).__name__} cannot skip a step by a flag on the device: the host waits for the device once in '
                'each step. LARS, and SGD, Adam and AdamW of torch without dampening, foreach or fused=False, can.',
                logger='current',
                level=logging.WARNING,
            )
        self.stepped = False
        self.real: Tensor | None = None  # before the first attempt
        self.grad_norm: Tensor | None = None  # of the last attempt, before clipping; 0-dim on the device
        self.epoch_length: int | None = None  # set by the Runner; None: windows run over epoch ends
        self.frozen: list[nn.Parameter] = []  # the next step leaves them alone; a hook says which
        self.on_non_finite: list[Callable[[float, int], str]] = []  # (number, iteration): hooks add what they know
        self._failure, self._loss = FirstFailure(), None
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
        with super().optim_context(model), autocast, self._explained():
            yield

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: dict | None = None,
        zero_kwargs: dict | None = None,
        backward: Callable[[Tensor, Tensor], None] | None = None,
    ) -> None:
        """``backward(loss, gradient)``: what stands for ``loss.backward(gradient)``; the loss is scaled for half precision."""
        self.stepped = False
        if not getattr(loss, 'requires_grad', False):
            raise ValueError(
                f"There is no loss to train by, got {loss!r}: return {{'loss_...': a tensor with a gradient}}."
            )
        with self._explained():
            self._loss = loss.detach()
            self._failure.see(self._loss, self._inner_count, self._loss)
            self.backward(self.scale_loss(loss), by=backward)
            if self.should_update():
                self.step(**(step_kwargs or {}))
                self.zero_grad(**(zero_kwargs or {}))
                self.stepped = True

    def check(self) -> None:
        """NonFiniteLossError, in every process, if an iteration was not finite in any. Every process must call it.

        The one place where the host waits for the device, so not for every step.
        """
        if (found := self._failure.read()) is None:
            return
        if self._before is not None:  # inside a window
            self._before.put_back()
        iteration, loss = found
        what = f'The loss of iteration {iteration} is {loss}, expected a finite number.'
        if math.isfinite(loss):
            what = f'The gradient of iteration {iteration} has NaN or infinite values, at a loss of {loss}.'
        raise self._non_finite(what, loss, iteration)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What fails inside while weights, gradients or its own arguments are not finite is a non-finite loss.

        A decomposition or a check may stop at a NaN before there is a loss. Looks only once something has failed.
        """
        try:
            yield
        except (NonFiniteLossError, torch.cuda.OutOfMemoryError):
            raise
        except (ValueError, RuntimeError, ArithmeticError) as error:  # LinAlgError is a RuntimeError
            bad = non_finite_argument(error)
            gradients = [p.grad for p in self._parameters()]
            if bad is None and all_finite(self._parameters()) and all_finite(gradients):
                raise
            where = f' in {bad}' if bad else ''
            message = (
                f'Iteration {self._inner_count} has no finite loss: NaN or infinite values{where} ended it with '
                f'{type(error).__name__}: {error}'
            )
            first, loss = self._failure.own() or (self._inner_count, math.nan)
            if first < self._inner_count:
                message += f' The first that was not finite is iteration {first}, with a loss of {loss}.'
            raise self._non_finite(message, loss, first) from error

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group['params']]

    def _non_finite(self, message: str, number: float, iteration: int) -> NonFiniteLossError:
        bad = sum(not all_finite(p) for p in self._parameters())
        if bad:
            message += f' {bad} weights are not finite already: the step before this one spoilt them.'
        told = [report(number, iteration) for report in self.on_non_finite]
        return NonFiniteLossError(' '.join([message, LIKELY_CAUSES, *told]))

    def backward(self, loss: Tensor, by: Callable[[Tensor, Tensor], None] | None = None, **kwargs: Any) -> None:
        """After a failure NaN enters, so that the sum of the gradients over processes tells all of them."""
        loss = self.scaler.scale(loss) if self.scaler else loss
        poison = self._failure.poison
        gradient = torch.ones_like(loss) if poison is None else (1 + poison).to(loss.dtype).expand_as(loss)
        if by is None:
            loss.backward(gradient, **kwargs)
        else:
            by(loss, gradient)
        self._inner_count += 1

    @torch.no_grad()
    def step(self, **kwargs: Any) -> None:
        for parameter in self.frozen:
            parameter.grad = None  # no decay and no momentum either
        parameters = [p for p in self._parameters() if p.grad is not None]
        self._judge(parameters)
        if parameters:
            if self.clip_grad_kwargs:
                norm = clip(parameters, self.grad_norm, self.clip_func, self.clip_grad_kwargs)
                if norm is not None:
                    self.message_hub.update_scalar('train/grad_norm', norm)
            self._descend(**kwargs)
            if self.scaler:
                self.scaler.update()
        if self._before is not None:
            self._before.put_back(unless=self.real)
            self._before = None

    def _judge(self, parameters: list[nn.Parameter]) -> None:
        """Whether the step is real. A gradient that is not finite is final, unless a smaller scale of the loss may help."""
        norm = final = self._loss.new_zeros(())
        if parameters:
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            self.grad_norm = norm = final = get_total_norm([p.grad for p in parameters])
            if self.scaler:
                final = torch.where(self.scaler.scale(torch.ones_like(norm)) < SMALLEST_SCALE, norm, 0.0)
        self._failure.see(final, self._inner_count - 1, self._loss)
        self.real = torch.isfinite(norm + self._failure.poison)

    def _descend(self, **kwargs: Any) -> None:
        """The optimizer's step where ``real`` is set."""
        if not self.obeys_flag:
            if self.real.item():
                self.optimizer.step(**kwargs)
            return
        start_momentum(self.optimizer)
        self.optimizer.found_inf = 1.0 - self.real.float()
        self.optimizer.step(**kwargs)
        del self.optimizer.found_inf

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
        state = as_built(state_dict, self.optimizer)
        scaler = state.pop('loss_scaler', None)
        if self.scaler and scaler:
            self.scaler.load_state_dict(scaler)
        super().load_state_dict(state)
