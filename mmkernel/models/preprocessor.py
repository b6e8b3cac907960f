"""uint8 views -> normalised floats, on the device."""

import warnings
from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.kernels.fused import fused
from mmkernel.registry import MODELS


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """x -> (x / 255 - mean) / std for uint8 images; floating images are taken as normalised already.

    ``mean``, ``std``: per channel, on the 0..1 scale. Images travel as uint8 and become float here: a quarter of the bytes.
    Our datasets give uint8 alone. Floats in a batch of another dataset warn once, unless mean and std are 0 and 1; other types
    and another number of channels are a ValueError.
    ``finish``: a module (inputs, drawn) -> inputs of grey levels, for a batch whose views are left to the device: it has what was
    ``drawn`` for them. A Runner sets it to what the data set's ``place(device)`` gives. None: such a batch is a ValueError.
    """

    def __init__(
        self, mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,), channels_last: bool = False
    ) -> None:
        super().__init__(non_blocking=True)
        check_numbers('ViewPreprocessor', signed=True, mean=mean)
        check_numbers('ViewPreprocessor', std=std)
        if len(mean) != len(std):
            raise ValueError(f'mean and std need one entry per channel each, got mean = {mean}, std = {std}.')
        self.channels_last = channels_last
        self.finish: nn.Module | None = None
        self.scales = any(mean) or any(value != 1 for value in std)
        self.register_buffer('mean', 255 * torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', 255 * torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, data: dict, training: bool = False) -> dict:
        """The batch with its ``inputs``, a list of views (B, C, H, W), normalised."""
        data = self.cast_data(data)
        inputs, drawn = data['inputs'], data.pop('drawn', None)
        if drawn is not None:
            if self.finish is None:
                raise ValueError(
                    "The views of a batch are not finished: it has 'drawn', and data_preprocessor.finish is None. Set it to what "
                    "dataset.place(device) returned, as a Runner does; or make the views in the workers: views_on='worker'."
                )
            for view in inputs:
                self._check_shape(view)
            return {**data, 'inputs': fused(_finished, inputs[0], self, inputs, drawn)}
        if self.scales and any(torch.is_floating_point(view) for view in inputs):
            self.scales = False  # warn once
            warnings.warn(
                'A batch holds floating images, taken as normalised: mean and std of the data_preprocessor are not applied. Let '
                'the dataset give uint8, or set mean=[0.] and std=[1.] if this is meant.',
                stacklevel=2,
            )
        return {**data, 'inputs': [self.normalize(view) for view in inputs]}

    def normalize(self, images: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or floating, on any device -> floating, on the model's device."""
        images = images.to(self.mean.device, non_blocking=True)
        self._check_shape(images)
        if images.dtype == torch.uint8:
            return self.scaled(images)
        if not images.is_floating_point():
            raise ValueError(f'Images are {images.dtype}; expected uint8, or floats that are normalised already.')
        return images.to(memory_format=torch.channels_last if self.channels_last else torch.preserve_format)

    def _check_shape(self, images: Tensor) -> None:
        if images.ndim != 4:
            raise ValueError(
                f'Images have shape {tuple(images.shape)}; expected (B, C, H, W), in a batch a list of such views.'
            )
        if self.mean.shape[0] not in (1, images.shape[1]):
            raise ValueError(
                f'Images have {images.shape[1]} channels, but data_preprocessor.mean has {self.mean.shape[0]} entries. Give one '
                'mean and std per channel, and images whose channels come last in the source: (H, W, C).'
            )

    def scaled(self, levels: Tensor) -> Tensor:
        """Grey levels 0..255, as uint8 or as floats that nobody else holds -> normalised floats."""
        # one pass turns bytes, which come in the order (H, W, C), into floats in the model's order; the others work in place
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        levels = levels.to(self.mean.dtype, memory_format=layout).contiguous(memory_format=layout)
        return levels.sub_(self.mean).div_(self.std)


def _finished(first: Tensor, preprocessor: ViewPreprocessor, inputs: list[Tensor], drawn: list[Tensor]) -> list[Tensor]:
    """``fused`` asks ``first`` for its device."""
    return [preprocessor.scaled(view) for view in preprocessor.finish(inputs, drawn)]
