"""Several objectives on the same embeddings."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmkernel.models.embeddings import Embeddings
from mmkernel.models.flag import tell
from mmkernel.models.heads.head import Head
from mmkernel.models.joint_embedding import build_part
from mmkernel.registry import MODELS


@MODELS.register_module()
class SumHead(Head):
    """sum_h loss_h(embeddings): every part keeps its own weights, keys become ``loss_<name>_<word>`` and ``<name>_<word>``.

    For instance the variance and covariance terms beside a cosine prediction (Bardes et al., ICLR 2022, table 4):
    ``heads=dict(prediction=dict(type='CosinePredictionHead'), spread=dict(type='VarianceCovarianceHead', ...))``.
    """

    def __init__(self, heads: dict[str, Head | dict], in_dim: int | None = None) -> None:
        super().__init__()
        if not isinstance(heads, Mapping) or not heads:
            raise ValueError(
                'SumHead.heads is a dict that names the heads to add, e.g. dict(spread=dict(type=...)); got '
                f'{f"a {type(heads).__name__}" if heads else "none"}.'
            )
        for name in heads:
            if 'loss' in name or not name.isidentifier():
                raise ValueError(
                    f"SumHead: {name!r} cannot name a head: names become parts of log keys, and keys with 'loss' are summed. "
                    "Use a plain word, e.g. 'spread'."
                )
        self.in_dim = in_dim
        self.heads = nn.ModuleDict({name: build_part(head, in_dim) for name, head in heads.items()})

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        parts = {}
        for name, head in self.heads.items():
            for key, value in head.loss(embeddings).items():
                is_loss = key.startswith('loss_')
                parts[f'loss_{name}_{key.removeprefix("loss_")}' if is_loss else f'{name}_{key}'] = value
        return parts

    def commit(self, real: Tensor | None = None) -> None:
        for head in self.heads.values():
            tell(head.commit, real=real)

    @property
    def needs_sample_index(self) -> bool:
        return any(getattr(head, 'needs_sample_index', False) for head in self.heads.values())
