"""Losses and gradients that are not finite: noticed on the device, read and explained once something has failed."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import gather_rows
from mmkernel.models import Embeddings

LIKELY_CAUSES = (
    'Likely causes: a learning rate that is too large or lacks warm-up (check lr, lr_scaling, param_scheduler), '
    'half precision (try --cfg-options optim_wrapper.precision=float32), or images and normalisation with bad values.'
)


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; nothing of this iteration, or of a later one, has reached the weights."""


class FirstFailure:
    """The first iteration whose loss, or gradient, was not finite, and its loss. On the device; only ``read`` waits for it.

    ``poison`` is 0 until then and NaN ever after: added to what enters a backward pass it tells every process, by the sum of
    gradients that they exchange anyway.
    """

    def __init__(self) -> None:
        self.poison: Tensor | None = None  # 0-dim; None before the first number

    @torch.no_grad()
    def see(self, number: Tensor, iteration: int, loss: Tensor | None = None) -> None:
        """``number``: a loss or the norm of a gradient, one element. ``loss``: what to tell of it, if not the number."""
        number = number.detach().reshape(())
        loss = number if loss is None else loss.reshape(())
        if self.poison is None:
            self.poison, self.loss = torch.zeros_like(number), torch.zeros_like(loss)
            self.iteration = torch.zeros_like(number, dtype=torch.int64)
        before = self.poison.isnan()
        self.poison = self.poison + 0 * number  # 0 * inf is NaN too
        self.loss = torch.where(before, self.loss, loss)
        self.iteration = torch.where(before, self.iteration, iteration)

    def read(self) -> tuple[int, float] | None:
        """(iteration, loss) of the first failure in any process, or None. Every process must call it."""
        if self.poison is None:
            return None
        return _first(gather_rows(self._row(), checked=True))

    def own(self) -> tuple[int, float] | None:
        """The first failure that this process has seen. No other is asked."""
        return None if self.poison is None else _first(self._row())

    def _row(self) -> Tensor:
        return torch.stack([self.poison.double(), self.iteration.double(), self.loss.double()])[None]


def _first(rows: Tensor) -> tuple[int, float] | None:
    found = [(int(i), loss) for poison, i, loss in rows.tolist() if poison != 0]
    # where one process had the NaN, the others see it in the gradient alone
    return min(found, key=lambda failure: (failure[0], math.isfinite(failure[1])), default=None)


def all_finite(value: Any) -> bool:
    """Whether every floating tensor in ``value`` (a tensor, Embeddings, or dicts and lists of such) is finite. Reads the host."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or value.is_meta or bool(torch.isfinite(value.detach()).all())
    if isinstance(value, Embeddings):
        return all_finite(vars(value))
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return all(map(all_finite, values))


def non_finite_argument(error: BaseException) -> str | None:
    """'x of whiten': the outermost tensor with NaN or infinity that a function was given on the way to ``error``."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        for name in code.co_varnames[: code.co_argcount]:
            if not all_finite(frame.f_locals.get(name)):
                return f'{name} of {code.co_name}'
    return None
