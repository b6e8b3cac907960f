"""Features of images in eval mode: what the classifier, the pretraining model and a published encoder have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmkernel.checks import check_words
from mmkernel.models.image_sizes import named_sizes


class FeatureExtractor:
    """h = backbone(x), then stage(h): ``extract`` for a module with a ``data_preprocessor`` and a ``backbone``.

    ``stages``: the parts of the module that features can be taken from, 'backbone' first; each further one takes h.
    """

    stages: tuple[str, ...] = ('backbone',)

    @torch.no_grad()
    def extract(self, images: Tensor, stage: str = 'backbone') -> Tensor:
        """(B, C, H, W) uint8 or normalised images, on any device -> (B, d), in eval mode; monitors and benchmarks use nothing else.

        ``stage``: one of ``stages``; ValueError for another.
        """
        check_words(type(self).__name__, stage=(stage, self.stages))
        parts = [getattr(self, name) for name in dict.fromkeys(['backbone', stage])]
        if getattr(parts[-1], 'spread', False):
            raise ValueError(
                f"The {stage} is sharded over ranks, and none has its rows: take stage='backbone', or one process."
            )
        x = self.data_preprocessor.normalize(images)
        with _evaluating(*parts), named_sizes(self.backbone, [tuple(x.shape[2:])]):
            for part in parts:
                x = part(x)
            return x


def image_channels(model: nn.Module) -> int | None:
    """Channels of the images that a model takes: entries of the preprocessor's mean, or those of its first convolution.

    None where neither tells: a mean of one entry serves any number. ``backbone`` is looked at where there is one.
    """
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', ())
    parts = getattr(model, 'backbone', model).modules()
    first = next((part for part in parts if isinstance(part, nn.Conv2d)), None)
    return len(mean) if len(mean) > 1 or first is None and len(mean) else getattr(first, 'in_channels', None)


@contextmanager
def _evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards each module, and each part of it, is in the mode that it was in."""
    before = [(part, part.training) for module in modules for part in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for part, training in before:
            part.training = training
