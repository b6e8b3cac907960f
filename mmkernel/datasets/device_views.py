"""The operations of views that run on the device: a batch at a time, with the parameters that the workers drew."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.hashes import content
from mmkernel.registry import TRANSFORMS

from .operations import Operation


def has_device_form(kind: type) -> bool:
    """Whether ``on_device`` is that of ``apply``: a subclass that changes ``apply`` alone would make another picture.

    Operations that change the size of an image have none: on the device each image of a batch is changed or left alone.
    """
    if not issubclass(kind, Operation) or kind.floats is None or kind.size_after is not Operation.size_after:
        return False
    return 'on_device' in next(vars(base) for base in kind.__mro__ if {'apply', 'on_device'} & set(vars(base)))


def device_forms() -> list[str]:
    """The names of the registered operations that have one."""
    return sorted(
        name for name, kind in TRANSFORMS.entries().items() if isinstance(kind, type) and has_device_form(kind)
    )


class DeviceViews(nn.Module):
    """Unfinished views and the numbers that were drawn for them -> finished views. No parameters, nothing random.

    forward(inputs, drawn): V tensors uint8 (B, C, H_v, W_v) and V float32 (B, P_v), one row of ``encode_steps`` an image.
    The result: V float32 (B, C, H_v, W_v) of whole numbers 0..255; uint8 as it came where a view has no operations here.

    steps: the operations of each of the V views. sizes: theirs, or what stands for one that varies (see ``views.WHOLE``). Views of
    one size whose operations differ in their probabilities only go as one batch.
    """

    def __init__(self, steps: Sequence[Sequence[Operation]], sizes: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.steps = [list(each) for each in steps]
        self.widths = [sum(1 + step.floats for step in each) for each in steps]
        groups: dict[bytes, list[int]] = {}
        for v, (each, size) in enumerate(zip(steps, sizes, strict=True)):
            alike = [(type(step), {**vars(step), 'probability': None}) for step in each]
            groups.setdefault(content((alike, size)), []).append(v)
        self.groups = [members for members in groups.values() if self.widths[members[0]]]

    def forward(self, inputs: Sequence[Tensor], drawn: Sequence[Tensor]) -> list[Tensor]:
        found = [part.shape[1] for part in drawn]
        if found != self.widths or len(inputs) != len(drawn):
            raise ValueError(
                f'A batch has {len(inputs)} views with {found} drawn numbers, these DeviceViews finish views with {self.widths}: '
                'it comes from another data set. Use the DeviceViews that its own place(device) gives.'
            )
        made = list(inputs)
        # not under autocast: products in half precision would round grey levels
        with torch.no_grad(), torch.autocast(inputs[0].device.type, enabled=False):
            for members in self.groups:
                images, numbers = torch.cat([inputs[v] for v in members]), torch.cat([drawn[v] for v in members])
                parts = apply_steps(self.steps[members[0]], images.float(), numbers).chunk(len(members))
                for v, part in zip(members, parts, strict=True):
                    made[v] = part
        return made


def encode_steps(steps: Sequence[Operation], params: Sequence[Any]) -> list[float]:
    """One row of ``drawn``: of each step 1 and the numbers of ``encode``, or zeros where it is left out."""
    row: list[float] = []
    for step, drawn in zip(steps, params, strict=True):
        numbers = [0.0] * step.floats if drawn is None else step.encode(drawn)
        if len(numbers) != step.floats:
            name = type(step).__name__
            raise ValueError(
                f'{name}.encode gave {len(numbers)} numbers, {name}.floats says {step.floats}: they must agree.'
            )
        row += [float(drawn is not None), *numbers]
    return row


def apply_steps(steps: Sequence[Operation], images: Tensor, drawn: Tensor) -> Tensor:
    """All ``steps`` on a batch (B, C, H, W), each where it was drawn."""
    first = 0
    for step in steps:
        last = first + 1 + step.floats
        there, numbers = drawn[:, first, None, None, None] > 0, drawn[:, first + 1 : last]
        images = torch.where(there, step.on_device(images, numbers), images)
        first = last
    return images
