"""Features of images in eval mode: what the classifier, the pretraining model and a published encoder have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmkernel.checks import check_words


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
        x = self.data_preprocessor.normalize(images)
        with _evaluating(*parts):
            for part in parts:
                x = part(x)
            return x


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
