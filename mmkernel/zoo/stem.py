"""The first convolution of a network, and its filters for images with another number of channels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from mmkernel.zoo.pins import CheckpointError


def first_convolution(model: nn.Module) -> tuple[str, nn.Conv2d | None]:
    """(name, module); ('', None) for a network without convolutions."""
    return next(((name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d)), ('', None))


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Filters (O, I, h, w) -> (O, channels, h, w), I = 1 or 3, by the rules of timm's ``adapt_input_conv``.

    3 -> 1: the sum over colours, which gives a grey image (x) what (x, x, x) gave. 3 -> n: colours repeated in their order,
    times 3 / n. 1 -> n: the filter in each channel, divided by n. CheckpointError for other numbers.
    """
    given = weight.shape[1]
    if given == channels:
        return weight
    if given == 3 and channels == 1:
        return weight.float().sum(1, keepdim=True).to(weight.dtype)  # half precision loses digits in a sum
    if given not in (1, 3):
        raise CheckpointError(
            f'filters for {given} channels cannot be adapted to {channels}: only those for 1 or 3 (grey, RGB) can.'
        )
    repeated = weight.repeat(1, math.ceil(channels / given), 1, 1)[:, :channels]
    return repeated * (given / channels)
