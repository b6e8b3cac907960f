"""The one owner of the optimizer step: precision, accumulation, the finite check, and whether a real step happened."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.engine.parameter_rates import check_groups
from mmkernel.engine.wrapping import restride_state
from mmkernel.models import Embeddings
from mmkernel.registry import OPTIM_WRAPPERS, check_keywords

PRECISIONS = {'float32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}

LIKELY_CAUSES = (
    'Likely causes: a learning rate that is too large or lacks warm-up (check lr, lr_scaling, param_scheduler), '
    'half precision (try --cfg-options optim_wrapper.precision=float32), or images and normalisation with bad values.'
)


class NonFiniteLossError(RuntimeError):
    """The loss is NaN or infinite; nothing of this iteration has reached the weights."""


CLIPPING = {'norm': torch.nn.utils.clip_grad_norm_, 'value': torch.nn.utils.clip_grad_value_}


def check_clipping(clip_grad: Mapping[str, Any]) -> None:
    """ValueError for ``clip_grad`` that torch's function would refuse at the first step, or that means nothing."""
    kind = clip_grad.get('type', 'norm')
    if kind not in CLIPPING:
        raise ValueError(f"optim_wrapper.clip_grad.type is 'norm' or 'value', got {kind!r}.")
    given = {key: value for key, value in clip_grad.items() if key != 'type'}
    check_keywords(CLIPPING[kind], ['parameters', *given], 'optim_wrapper.clip_grad')
    limit = dict(norm='max_norm', value='clip_value')[kind]
    check_numbers('optim_wrapper.clip_grad', **{limit: given.get(limit)})
    if given.get('norm_type') != math.inf:
        check_numbers('optim_wrapper.clip_grad', none=True, norm_type=given.get('norm_type'))


def non_finite_argument(error: BaseException) -> str | None:
    """'x of whiten': the outermost tensor with NaN or infinity that a function was given on the way to ``error``."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        for name in code.co_varnames[: code.co_argcount]:
            if not all_finite(frame.f_locals.get(name)):
                return f'{name} of {code.co_name}'
    return None


def all_finite(value: Any) -> bool:
    """Whether every floating tensor in ``value`` (a tensor, Embeddings, or dicts and lists of such) is finite. Reads the host."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or value.is_meta or bool(torch.isfinite(value.detach()).all())
    if isinstance(value, Embeddings):
        return all_finite(vars(value))
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return all(map(all_finite, values))


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
        self.stepped = False
        self.epoch_length: int | None = None  # set by the Runner; None: windows run over epoch ends
        self.frozen: list[nn.Parameter] = []  # the next step leaves them alone; a hook says which
        self.on_non_finite: list[Callable[[float], str]] = []  # hooks add what they know to the error

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Forward pass in the chosen precision, without gradient exchange inside an accumulation window."""
        dtype = PRECISIONS[self.precision]
        autocast = torch.autocast(self.device_type, dtype, enabled=dtype is not None)
        with super().optim_context(model), autocast, self._explained():
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
        with self._explained():
            self.backward(self.scale_loss(loss), by=backward)
            if self.should_update():
                self.step(**(step_kwargs or {}))
                self.zero_grad(**(zero_kwargs or {}))

    def _check_finite(self, loss: Tensor) -> None:
        if not torch.isfinite(loss).all():
            value = float(loss.detach())
            raise self._non_finite(
                f'The loss of iteration {self._inner_count} is {value}, expected a finite number.', value
            )

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
            raise self._non_finite(
                f'Iteration {self._inner_count} has no finite loss: NaN or infinite values{where} ended it with '
                f'{type(error).__name__}: {error}',
                math.nan,
            ) from error

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group['params']]

    def _non_finite(self, message: str, value: float) -> NonFiniteLossError:
        bad = sum(not all_finite(p) for p in self._parameters())
        if bad:
            message += f' {bad} weights are not finite already: the step before this one spoilt them.'
        return NonFiniteLossError(' '.join([message, LIKELY_CAUSES, *(report(value) for report in self.on_non_finite)]))

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
        restride_state(self.optimizer)
