"""Losses, gradients and checkpoints that are not finite: detected on the device, explained when the run ends by them."""

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor
from torch._subclasses import FakeTensor

from mmkernel.checks import NonFiniteLossError, check_numbers
from mmkernel.distributed import gather_rows
from mmkernel.engine.last_steps import LastSteps
from mmkernel.models import Embeddings
from mmkernel.registry import HOOKS

LIKELY_CAUSES = (
    'Likely causes: a learning rate that is too large or lacks warm-up (check lr, lr_scaling, param_scheduler), '
    'half precision (try --cfg-options optim_wrapper.precision=float32), or images and normalisation with bad values.'
)


class FirstFailure:
    """The first iteration whose loss, or gradient, was not finite, and its loss. On the device; only ``read`` waits for it.

    ``poison`` is 0 until then and NaN afterwards. It enters the backward pass, so the sum of gradients tells every process.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, put_back: Callable[[], None] = lambda: None) -> None:
        self.optimizer = optimizer
        self.put_back = put_back  # called before an error is told: state is that of the last real step
        self.poison: Tensor | None = None  # 0-dim; None before the first number
        # (loss, iteration, whether this process alone may know): hooks add what they know
        self.reports: list[Callable[[float, int, bool], str]] = []

    @torch.no_grad()
    def see(self, number: Tensor, iteration: int, loss: Tensor) -> None:
        """Look at ``number``, a loss or the norm of a gradient, of one element; ``loss`` is reported if it is not finite."""
        number, loss = number.detach().reshape(()), loss.reshape(())
        if self.poison is None:
            self.poison, self.loss = torch.zeros_like(number), torch.zeros_like(loss)
            self.iteration = torch.zeros_like(number, dtype=torch.int64)
        before = self.poison.isnan()
        self.poison = self.poison + 0 * number  # 0 * inf is NaN too
        self.loss = torch.where(before, self.loss, loss)
        self.iteration = torch.where(before, self.iteration, iteration)

    def read(self, own: bool = False) -> tuple[int, float] | None:
        """(iteration, loss) of the first failure in any process, each of which must call it (``own``: in this one), or None."""
        if self.poison is None:
            return None
        rows = torch.stack([self.poison.double(), self.iteration.double(), self.loss.double()])[None]
        rows = rows if own else gather_rows(rows, checked=True)
        found = [(int(i), loss) for poison, i, loss in rows.tolist() if poison != 0]
        # the process with the NaN knows its loss; the others see the gradient alone
        return min(found, key=lambda failure: (failure[0], math.isfinite(failure[1])), default=None)

    def error(self) -> NonFiniteLossError | None:
        """The error of the first failure in any process, or None; each process must call it."""
        if (found := self.read()) is None:
            return None
        i, loss = found
        spoilt = f'The gradient of iteration {i} has NaN or infinite values, at a loss of {loss}.'
        return self._error(spoilt if math.isfinite(loss) else f'The loss of iteration {i} is {loss}.', loss, i, False)

    @contextmanager
    def explained(self, iteration: int) -> Iterator[None]:
        """An error inside that a NaN has caused is raised as NonFiniteLossError. Values are read only after an error."""
        try:
            yield
        except (NonFiniteLossError, torch.cuda.OutOfMemoryError):
            raise
        except (ValueError, RuntimeError, ArithmeticError) as error:  # LinAlgError is a RuntimeError
            where, parameters = non_finite_argument(error), self._parameters()
            if where is None and not any(non_finite([parameters, [p.grad for p in parameters]])):
                raise
            what = f'NaN or infinite values{where or ""} ended it with {type(error).__name__}: {error}'
            message = f'Iteration {iteration} has no finite loss: {what}'
            first, loss = self.read(own=True) or (iteration, math.nan)
            if first < iteration:
                message += f' The first that was not finite is iteration {first}, with a loss of {loss}.'
            raise self._error(message, loss, first, True) from error

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group['params']]

    def _error(self, message: str, loss: float, iteration: int, alone: bool) -> NonFiniteLossError:
        self.put_back()
        if bad := len([*non_finite(self._parameters())]):
            message += f' {bad} weights are not finite already: the step before this one spoilt them.'
        told = (tell(loss, iteration, alone) for tell in self.reports)
        return NonFiniteLossError(' '.join([message, LIKELY_CAUSES, *told]))


def floats_in(value: Any, name: str = 'tensor') -> Iterator[tuple[str, Tensor]]:
    """Dotted names and floating tensors of a tensor, Embeddings, or dicts and lists of such."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and not value.is_meta and not isinstance(value, FakeTensor):  # both have no values
            yield name, value.detach()
        return
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    value = vars(value) if isinstance(value, Embeddings) else value
    for key, part in value.items() if isinstance(value, Mapping) else ():
        yield from floats_in(part, f'{name}.{key}')


def non_finite(value: Any, name: str = 'tensor') -> Iterator[str]:
    """The names of ``floats_in`` whose tensors have NaN or infinity. The host waits for the device."""
    yield from (found for found, x in floats_in(value, name) if not torch.isfinite(x).all())


def extremes(x: Tensor) -> dict[str, Any]:
    """Shape, type, least and greatest finite value (None: there is none), share of the values that are not finite."""
    x = x.detach()
    fine = x[torch.isfinite(x)]
    low, high = (fine.min().item(), fine.max().item()) if len(fine) else (None, None)
    share = (x.numel() - len(fine)) / max(x.numel(), 1)
    return dict(shape=list(x.shape), type=str(x.dtype)[6:], min=low, max=high, share_not_finite=share)


def non_finite_argument(error: BaseException) -> str | None:
    """' in x of whiten': the outermost tensor with NaN or infinity that a function was given on the way to ``error``."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        for name in code.co_varnames[: code.co_argcount]:
            if any(non_finite(frame.f_locals.get(name))):
                return f' in {name} of {code.co_name}'
    return None


def refuse_non_finite(runner: Any, checkpoint: dict) -> None:
    """NonFiniteLossError if a tensor of what is about to be written holds NaN or infinity: weights, buffers, optimizer, EMA."""
    skipped = ('meta', 'message_hub', 'random_states')
    if bad := [name for key, part in checkpoint.items() if key not in skipped for name in non_finite(part, key)]:
        batch = checkpoint['meta']['batch']
        when = f'in epoch {runner.epoch + 1}, after batch {batch}' if batch else f'after epoch {runner.epoch + 1}'
        raise NonFiniteLossError(
            f'{len(bad)} tensors hold NaN or infinite values {when} (first: {bad[0]}); no checkpoint '
            f'was written. {runner.folder.way_back()}'
        )


@HOOKS.register_module()
class NonFiniteGuardHook(Hook):
    """End the run at a loss or gradient that is not finite, and leave what ``mmkernel replay`` needs to repeat that step.

    The host looks every ``interval`` iterations and after an epoch. The log folder then has ``non_finite.pth``, model and
    optimizer before the step, and of every process ``non_finite_rank<r>.json``: epoch, iteration, loss, the sample indices of
    its batches and of the one before, random state, seed, last good checkpoint. Every process raises.
    """

    writes = ('non_finite_rank<r>.json', 'non_finite.pth')
    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 50) -> None:
        check_numbers('NonFiniteGuardHook', whole=True, interval=interval)
        self.interval = interval

    def before_train(self, runner: Any) -> None:
        wrapper = runner.optim_wrapper
        # those not checked yet, those before them in their window, and the one before
        self.last = LastSteps(runner, self.interval + getattr(wrapper, '_accumulative_counts', 1))
        self.check = getattr(wrapper, 'check', bool)
        if hasattr(wrapper, 'check'):
            wrapper.on_non_finite[:] = [self.last.stop]
        else:
            runner.logger.warning(
                f'{type(wrapper).__name__} notices no loss that is not finite; PretrainOptimWrapper does.'
            )

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        self.last.note(batch_idx, data_batch)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.every_n_train_iters(runner, self.interval):
            self.check()

    def after_train_epoch(self, runner: Any) -> None:
        self.check()
