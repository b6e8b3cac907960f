"""What one step of training holds and receives on rank 0 of W, counted: one process, the meta device, no memory and no data."""

import copy
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkernel.cli.bytes_per_rank import own_bytes, parts_of_encoders, size
from mmkernel.cli.live_bytes import LiveBytes
from mmkernel.cli.rehearsal import build_on_meta, views_of
from mmkernel.distributed import equal_rows
from mmkernel.distributed.shards import Shard
from mmkernel.engine import optimizers
from mmkernel.engine.config import check_virtual_batch
from mmkernel.engine.learning_rates import built_wrapper
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.engine.wrapping import _blocks as blocks_of
from mmkernel.engine.wrapping import checkpoint_blocks
from mmkernel.kernels import engine as pairwise_engine
from mmkernel.kernels.layouts import Engine, Rows
from mmkernel.models import Embeddings

# of the bytes that come out of a collective, what a rank receives on a ring, in (W - 1) / W
RINGS = dict(_allgather_base_=1, allgather_=1, alltoall_base_=1, allreduce_=2, _reduce_scatter_base_=1)


class NotCounted(Exception):
    """A step that needs values, which the meta device does not have, or parts whose interface is not known."""


@dataclass
class CountedStep:
    """``held``: bytes of each part; ``peak``: of all that is alive at once at most; ``received``: bytes over the wire of a step."""

    held: dict[str, int]
    peak: int
    received: dict[str, int]


@contextmanager
def as_rank_of(W: int) -> Iterator[None]:
    """Inside, this process is rank 0 of W, whose collectives return at once: torch's fake process group."""
    if W == 1:
        yield
        return
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=W)
    try:
        yield
    finally:
        dist.destroy_process_group()


def count_step(cfg: Config, W: int, images: int | None = None) -> CountedStep:
    """The second step of a run: gradients' buckets and the optimizer's state are there. In float32, whatever ``precision`` is.

    ``images``: of the data set, for buffers as large. Counted with the operators of torch: memory inside one, of a library, the
    allocator's gaps and the CUDA context are not. NotCounted where it is impossible; the errors of the parts as they are.
    """
    if dist.is_initialized():
        raise NotCounted('this process is in a process group already')
    generators = mock.Mock(side_effect=lambda device=None, of=torch.Generator: of())  # there are none of the meta device
    with (
        DefaultScope.overwrite_default_scope('mmkernel'), warnings.catch_warnings(), as_rank_of(W), equal_rows(),
        mock.patch.object(torch, 'autocast', return_value=nullcontext()),  # which does not know the meta device
        mock.patch.object(torch, 'Generator', generators),
        mock.patch.object(optimizers, 'sgd'),  # LARS's last kernel, in place
    ):  # fmt: skip
        warnings.simplefilter('ignore')
        try:
            return _counted(copy.deepcopy(cfg), W, images)
        except NotCounted:
            raise
        except Exception as error:  # the rehearsal, on one process, has refused what a run would refuse
            raise NotCounted(f'{type(error).__name__}: {str(error).partition(chr(10))[0]}') from error


def _counted(cfg: Config, W: int, images: int | None) -> CountedStep:
    model, several = build_on_meta(cfg).train(), check_virtual_batch(cfg, W)
    views = views_of(cfg, model)
    if not views or not hasattr(model, 'data_preprocessor'):
        raise NotCounted('what the views or the model ask for is not known')
    model.data_preprocessor.to('meta')
    if images and hasattr(getattr(model, 'head', None), 'prepare'):
        model.head.prepare(images)
    if cfg.get('activation_checkpointing'):
        checkpoint_blocks(model.backbone)
    given = {k: v for k, v in cfg.optim_wrapper.items() if k not in ('accumulative_counts', 'precision')}
    wrapper = built_wrapper(given, model, several > 1)
    for group in wrapper.optimizer.param_groups:  # the fused form has the same state, and no form for meta
        group.update(fused=None) if 'fused' in group else None
    wrapper.step = wrapper.optimizer.step
    trained = [p for p in model.parameters() if p.requires_grad]
    exchanged = [p for p in trained if W > 1 and not isinstance(p, Shard)]
    kept = exchanged if W > 1 else trained if cfg.optim_wrapper.get('accumulative_counts', 1) > 1 else []
    parts: dict[str, int] = {}
    for _ in range(2):
        batches = [_batch(cfg.train_dataloader.batch_size, views) for _ in range(several)]
        for p in kept:  # DistributedDataParallel's buckets, or the sums of an accumulation
            p.grad = torch.empty_like(p)
        with _watched(model, parts) as live:
            virtual_step(model, batches, wrapper) if several > 1 else model.train_step(batches[0], wrapper)
    constant = [p for p in model.parameters() if not p.requires_grad]
    states = [(p, x) for p, state in wrapper.optimizer.state.items() for x in state.values() if isinstance(x, Tensor)]
    part = parts_of_encoders(model, W) if cfg.get('fsdp') else {}
    held = {
        'weights that are trained': own_bytes(trained, part),
        'weights that are not (frozen, or of a momentum target)': own_bytes(constant, part),
        'buffers (batch norm, queues, prototypes, memories)': size(model.buffers()),
        f'optimizer, {type(wrapper.optimizer).__name__}': sum(
            int(x.nbytes * part.get(p, 1)) for p, x in states if x.ndim
        ),
        'gradients': own_bytes(trained, part),
        'images of a batch, uint8': size(x for batch in batches for x in batch['inputs']),
    }
    if W > 1 and (cfg.get('model_wrapper_cfg') or {}).get('gradient_as_bucket_view') is False:
        held["gradients once more, in DistributedDataParallel's buckets"] = size(exchanged)
    if part:
        blocks = [size(block.parameters()) for block in blocks_of(model.backbone)]
        rest = size(model.backbone.parameters()) - sum(blocks)
        held['weights of the encoder gathered for now: two blocks, and what is in none'] = rest + sum(
            sorted(blocks)[-2:]
        )
    inside = own_bytes(trained, part) - own_bytes(kept, part)  # made within the step: counted there
    peak = sum(held.values()) - inside + live.peak
    received: Counter[str] = Counter()
    for name, count in live.collectives:
        received[f'neck and objective, {name.strip("_")}'] += RINGS.get(name, 1) * count * (W - 1) // W
    if exchanged:
        whole = size(p for p in exchanged if p not in part)
        received['gradients, all_reduce'] = 2 * whole * (W - 1) // W
    if part:  # gathered forward and backward, gradients go back; those of a target once
        times = sum(p.nbytes * (3 if p.requires_grad else 1) for p in part)
        received['weights and gradients of the encoder, fsdp'] = times * (W - 1) // W
    return CountedStep(held | parts, peak, dict(received))


def _batch(count: int, views: list[tuple[int, ...]]) -> dict[str, Any]:
    numbers = torch.arange(count, device='meta')
    inputs = [torch.empty(count, *view, device='meta', dtype=torch.uint8) for view in views]
    return dict(inputs=inputs, sample_index=numbers, label=torch.zeros_like(numbers))


@contextmanager
def _watched(model: nn.Module, parts: dict[str, int]) -> Iterator[LiveBytes]:
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
