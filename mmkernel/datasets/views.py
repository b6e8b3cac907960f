"""Views: how one image becomes the pictures that a network sees."""

from collections.abc import Callable
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.random import Generator

from mmkernel.checks import check_numbers
from mmkernel.registry import TRANSFORMS

from .device_views import encode_steps, has_device_form
from .images import check_pixels
from .operations import Operation, height_width

Streams = Callable[[int], Generator]  # position in the group (-1: what its members share) -> its own generator
WHOLE = (1_000_003, 1_000_033)  # stands for the height and width of an image of any size, which no crop has


class Chain:
    """Crop and operations, one after the other. ``draw`` needs the size of the image, ``apply`` its pixels.

    The steps from ``host`` on are the device's: a worker encodes what was drawn for them, and does not apply them.
    """

    def __init__(
        self, size: int | tuple[int, int] | None = None, crop: dict | None = None, ops: dict | None = None
    ) -> None:
        if crop is not None and size is None:
            raise ValueError('a view with a crop needs a size, e.g. size=224')
        if crop is None and size is not None:
            raise ValueError(f'size={size} needs a crop that makes it, e.g. crop=dict(type="RandomResizedCrop")')
        steps = [] if crop is None else [TRANSFORMS.build(crop, default_args=dict(size=size))]
        # a child config removes an inherited operation by setting it to None
        self.steps = steps + [TRANSFORMS.build(op) for op in (ops or {}).values() if op is not None]
        for step in self.steps:
            if not isinstance(step, Operation):
                raise TypeError(
                    f'{type(step).__name__} is not an operation of a view: derive it from mmkernel.datasets.Operation.'
                )
        self.ops, self.host = self.steps[len(steps) :], len(self.steps)

    def leave_to_device(self, wanted: bool) -> list[Operation]:
        """Leave the longest tail of operations that all have a device form to the device, or nothing; returns them."""
        tail = list(takewhile(lambda step: has_device_form(type(step)), reversed(self.ops if wanted else [])))[::-1]
        self.host = len(self.steps) - len(tail)
        return tail

    def draw(self, rng: Generator, height: int, width: int) -> list[Any]:
        """Parameters of each step, None where it is left out."""
        params = []
        for step in self.steps:
            params.append(step.draw(rng, height, width))
            height, width = step.size_after(height, width)
        return params

    def apply(self, image: np.ndarray, params: list[Any], exact: bool = False, whole: bool = True) -> np.ndarray:
        """``exact``: by Pillow. ``whole``: all steps; otherwise without those of the device."""
        end = len(self.steps) if whole else self.host
        given = image
        for step, drawn in zip(self.steps[:end], params[:end], strict=True):
            if drawn is not None:
                if step in self.ops and np.may_share_memory(image, given):
                    image = image.view()  # the source keeps these pixels, or patches overlap in them
                    image.flags.writeable = False
                image = step.exact(image, drawn) if exact else step.apply(image, drawn)
                check_pixels(image, lambda step=step: type(step).__name__)  # a user's own, perhaps
        return image

    def encode(self, params: list[Any]) -> list[float]:
        """What the device needs to know for its steps."""
        return encode_steps(self.steps[self.host :], params[self.host :])

    def size_after(self, height: int, width: int) -> tuple[int, int]:
        for step in self.steps:
            height, width = step.size_after(height, width)
        return height, width


@TRANSFORMS.register_module()
class View:
    """``count`` views of the whole image, each drawn alone: ``crop`` to ``size``, then ``ops`` in dict order."""

    def __init__(
        self,
        count: int = 1,
        size: int | tuple[int, int] | None = None,
        crop: dict | None = None,
        ops: dict[str, dict | None] | None = None,
    ) -> None:
        check_numbers('View', whole=True, count=count)
        self.count, self.chain = count, Chain(size, crop, ops)
        self.size = WHOLE if size is None else height_width(size)

    def draw(self, streams: Streams, height: int, width: int) -> list[list[Any]]:
        """The parameters of all its views."""
        return [self.chain.draw(streams(k), height, width) for k in range(self.count)]

    def apply(self, image: np.ndarray, drawn: list[list[Any]], *how: bool) -> list[np.ndarray]:
        """uint8 (H, W, C) -> ``count`` arrays uint8 (H', W', C); ``how`` as in ``Chain.apply``."""
        return [self.chain.apply(image, params, *how) for params in drawn]

    def encode(self, drawn: list[list[Any]]) -> list[list[float]]:
        """What the device needs for each of them."""
        return [self.chain.encode(params) for params in drawn]


@TRANSFORMS.register_module()
class PatchView:
    """``count`` patches of one shared parent crop.

    The parent (``parent=dict(size, crop, ops)``) is cut into grid = (rows, columns) patches of ``size``, ``stride`` pixels
    apart (None: spread evenly, overlapping where they must), each shifted down and right by 0 .. ``jitter`` pixels. All
    come in row-major order; fewer are picked at random, in random order. Then each patch has its own ``ops``.
    Gidaris et al., OBoW, CVPR 2021 (3x3 patches of 96 out of 256, jitter 24); CPC's grid is jitter=0 and every patch.
    """

    def __init__(
        self,
        count: int,
        size: int | tuple[int, int],
        parent: dict[str, Any],
        grid: tuple[int, int] = (3, 3),
        jitter: int = 0,
        ops: dict[str, dict | None] | None = None,
        stride: int | None = None,
    ) -> None:
        self.rows, self.columns = height_width(grid)
        check_numbers('PatchView', whole=True, none=True, count=count, stride=stride)
        check_numbers('PatchView', whole=True, zero=True, jitter=jitter)
        if not 1 <= count <= self.rows * self.columns:
            raise ValueError(
                f'count={count} patches asked for, a {self.rows}x{self.columns} grid has {self.rows * self.columns}'
            )
        if unknown := sorted(set(parent) - {'size', 'crop', 'ops'}):
            raise TypeError(f'parent takes size, crop and ops, got {", ".join(unknown)}')
        self.parent = Chain(**parent)
        self.count, self.size, self.jitter, self.chain = count, height_width(size), jitter, Chain(ops=ops)
        self.stride = stride

    def draw(
        self, streams: Streams, height: int, width: int
    ) -> tuple[list[Any], list[tuple[int, int]], list[list[Any]]]:
        """Parameters of the parent, corners (top, left) of the patches, parameters of their operations."""
        shared = streams(-1)
        parent = self.parent.draw(shared, height, width)
        corners = self._corners(shared, *self.parent.size_after(height, width))
        return parent, corners, [self.chain.draw(streams(k), *self.size) for k in range(self.count)]

    def _corners(self, rng: Generator, height: int, width: int) -> list[tuple[int, int]]:
        free = height - self.size[0] - self.jitter, width - self.size[1] - self.jitter
        if min(free) < 0:
            raise ValueError(
                f'patches of {self.size} with jitter {self.jitter} do not fit into a parent of {(height, width)}; '
                'make size or jitter smaller, or parent.size larger'
            )
        steps = free[0] // max(self.rows - 1, 1), free[1] // max(self.columns - 1, 1)
        if self.stride is not None:
            if self.stride > min(steps):
                raise ValueError(
                    f'a {self.rows}x{self.columns} grid of patches of {self.size} with stride {self.stride} does not fit '
                    f'into a parent of {(height, width)}; the largest stride is {min(steps)}'
                )
            steps = self.stride, self.stride
        places = np.indices((self.rows, self.columns)).reshape(2, -1).T  # row-major
        corners = places * steps + rng.integers(self.jitter + 1, size=places.shape)
        if self.count < len(corners):
            corners = corners[rng.permutation(len(corners))[: self.count]]
        return [(top, left) for top, left in corners.tolist()]

    def apply(self, image: np.ndarray, drawn: tuple, *how: bool) -> list[np.ndarray]:
        """uint8 (H, W, C) -> ``count`` arrays uint8 (size, size, C); ``how`` as in ``Chain.apply``."""
        parent_params, corners, drawn_ops = drawn
        parent = self.parent.apply(image, parent_params, *how)
        (height, width) = self.size
        patches = [parent[top : top + height, left : left + width] for top, left in corners]
        return [self.chain.apply(patch, params, *how) for patch, params in zip(patches, drawn_ops, strict=True)]

    def encode(self, drawn: tuple) -> list[list[float]]:
        """What the device needs for each patch; their parent is a worker's."""
        return [self.chain.encode(params) for params in drawn[2]]


def build_view(name: str, cfg: dict[str, Any]) -> View | PatchView:
    """A view from its entry in the config; the type follows from the keys unless it is given."""
    cfg = dict(cfg)
    cfg.setdefault('type', 'PatchView' if 'parent' in cfg else 'View')
    try:
        return TRANSFORMS.build(cfg)
    except (TypeError, ValueError) as error:
        raise type(error)(f"view '{name}': {error}") from error
