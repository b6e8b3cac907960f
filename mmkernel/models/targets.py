"""What predictions must match. A target maps (images of the target views, their online embeddings) -> (G, B, q)."""

from __future__ import annotations

from torch import Tensor, nn

from mmkernel.registry import MODELS


@MODELS.register_module()
class OnlineTarget(nn.Module):
    """t = z: the online embeddings themselves, gradient included."""

    def forward(self, views: list[Tensor], online: Tensor | None) -> Tensor:
        """``online``: (G, B, q), or None where a target view is not among the online views."""
        if online is None:
            raise ValueError(
                'OnlineTarget takes its rows from the online views, but target_views names a view that online_views leaves '
                'out. Add it to online_views.'
            )
        return online
