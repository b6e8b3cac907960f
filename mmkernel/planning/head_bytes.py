"""What the encoder keeps when the head of a model begins, and what the head holds beside, on the meta device."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from torch import Tensor, nn

from mmkernel.kernels import engine as pairwise_engine
from mmkernel.kernels.layouts import Engine, Rows
from mmkernel.models import Embeddings
from mmkernel.planning.live_bytes import LiveBytes


@contextmanager
def watched(model: nn.Module, parts: dict[str, int]) -> Iterator[LiveBytes]:
    """LiveBytes of a step; into ``parts`` go what the encoder keeps when the head begins, and what the head takes."""
    head, live, before = getattr(model, 'head', None), LiveBytes('meta'), [0, 0]

    def begin(head: nn.Module, args: tuple) -> None:
        parts['kept by the encoder for the backward pass'] = live.now
        parts.update([_shown(args[0])] if args and isinstance(args[0], Embeddings) else [])
        parts['the objective at its peak'] = 0  # its place
        before[:], live.peak = [live.now, live.peak], live.now

    def end(head: nn.Module, args: tuple, losses: dict) -> None:
        parts['the objective at its peak'] = live.peak - before[0]
        live.peak = max(live.peak, before[1])

    hooks = [] if head is None else [head.register_forward_pre_hook(begin), head.register_forward_hook(end)]
    _SeenRows.parts = parts
    with live.outside(*model.parameters(), *model.buffers()), mock.patch.object(pairwise_engine, 'Rows', _SeenRows):
        yield live
    for hook in hooks:
        hook.remove()


def _shown(embeddings: Embeddings) -> tuple[str, int]:
    z, own = embeddings.online, embeddings.columns is not None
    shape = f'{"V x N x q/W" if own else "V x B x q"} = {" x ".join(map(str, z.shape))}'
    return f'... of it {"columns of embeddings" if own else "embeddings"}, {shape}', z.nbytes


class _SeenRows(Rows):
    """Rows of the engine, as a pairwise objective makes them, that leave their sizes in ``parts``."""

    parts: dict[str, int]

    def __init__(self, u: Tensor, engine: Engine, sharded: bool) -> None:
        super().__init__(u, engine, sharded)
        (V, N, c), how = self.x.shape, 'columns' if self.summed else 'rows'
        block = self.blocks(1)[0]
        b = block.stop - block.start
        if self.gathered or self.summed and not sharded:
            self.parts[f'... of it {how} of all ranks, {V} x {N} x {c} (layout={engine.layout!r})'] = self.x.nbytes
        self.parts[f'... of it a block of Gram matrices, {V} x {b} x {N}'] = V * b * N * self.u.element_size()
