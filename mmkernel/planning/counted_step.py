"""What one step of training holds and receives on rank 0 of W, counted: one process, the meta device, no memory and no data."""

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkernel.distributed import equal_rows
from mmkernel.distributed.shards import Shard, is_spread
from mmkernel.engine import optimizers
from mmkernel.engine.clipping import check_for_shards
from mmkernel.engine.config import check_virtual_batch
from mmkernel.engine.learning_rates import built_wrapper
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.engine.wrapping import checkpoint_blocks
from mmkernel.planning.bytes_per_rank import size
from mmkernel.planning.head_bytes import watched
from mmkernel.planning.meta_fsdp import Sent, spread_on_meta
from mmkernel.planning.rehearsal import build_on_meta, views_of

# of the bytes that come out of a collective, what a rank receives on a ring, in (W - 1) / W
RINGS = dict(_allgather_base_=1, allgather_=1, alltoall_base_=1, allreduce_=2)


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
    generators = mock.Mock(
        side_effect=lambda device=None, of=torch.Generator: of()
    )  # there are none of the meta device
    with (
        DefaultScope.overwrite_default_scope('mmkernel'), warnings.catch_warnings(), as_rank_of(W), equal_rows(),
        mock.patch.object(torch, 'autocast', return_value=nullcontext()),  # which does not know the meta device
        mock.patch.object(torch, 'Generator', generators),
        mock.patch.object(optimizers, 'sgd'),  # LARS's last kernel, in place
    ):  # fmt: skip
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)  # of optimizers, for each parameter
        try:
            return _counted(copy.deepcopy(cfg), W, images)
        except NotCounted:
            raise
        except Exception as error:  # the rehearsal, on one process, has refused what a run would refuse
            raise NotCounted(f'{type(error).__name__}: {str(error).partition(chr(10))[0]}') from error
        finally:
            logging.disable(logging.NOTSET)


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
    with spread_on_meta(model if W > 1 and cfg.get('fsdp') else None) as sent:
        return _stepped(cfg, W, model, several, views, sent)


def _stepped(
    cfg: Config, W: int, model: nn.Module, several: int, views: list[tuple[int, ...]], sent: Sent
) -> CountedStep:
    given = {k: v for k, v in cfg.optim_wrapper.items() if k not in ('accumulative_counts', 'precision')}
    wrapper = built_wrapper(given, model, several > 1)
    check_for_shards(
        wrapper.optimizer, cfg.optim_wrapper.get('precision', 'float32'), None
    )  # which it was not built with
    for group in wrapper.optimizer.param_groups:  # the fused form has the same state, and no form for meta
        group.update(fused=None) if 'fused' in group else None
    wrapper.step = partial(_step, wrapper)
    trained = [p for p in model.parameters() if p.requires_grad]
    exchanged = [p for p in trained if W > 1 and not isinstance(p, Shard) and not is_spread(p)]
    kept = exchanged if W > 1 else trained if cfg.optim_wrapper.get('accumulative_counts', 1) > 1 else []
    parts: dict[str, int] = {}
    for _ in range(2):
        batches = [_batch(cfg.train_dataloader.batch_size, views) for _ in range(several)]
        for p in kept:  # DistributedDataParallel's buckets, or the sums of an accumulation
            p.grad = torch.empty_like(p)
        sent.clear()
        with watched(model, parts) as live:
            virtual_step(model, batches, wrapper) if several > 1 else model.train_step(batches[0], wrapper)
    held = _held(model, wrapper.optimizer) | {
        'images of a batch, uint8': size(x for batch in batches for x in batch['inputs'])
    }
    if W > 1 and (cfg.get('model_wrapper_cfg') or {}).get('gradient_as_bucket_view') is False:
        held["gradients once more, in DistributedDataParallel's buckets"] = size(exchanged)
    inside = size(trained) - size(kept)  # made within the step: counted there
    peak = sum(held.values()) - inside + live.peak
    return CountedStep(held | parts, peak, _received(live.collectives, exchanged, sent, W))


def _step(wrapper: Any) -> None:
    """Of the optimizer alone: flags and the norm of the gradient are a few numbers."""
    if hasattr(wrapper, 'parts'):
        wrapper.parts.take_gradients()
    wrapper.optimizer.step()


def _held(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """From step to step."""
    trained = [p for p in model.parameters() if p.requires_grad]
    states = [x for state in optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
    return {
        'weights that are trained': size(trained),
        'weights that are not (frozen, or of a momentum target)': size(
            p for p in model.parameters() if not p.requires_grad
        ),
        'buffers (batch norm, queues, prototypes, memories)': size(model.buffers()),
        f'optimizer, {type(optimizer).__name__}': size(x for x in states if x.ndim),
        'gradients': size(trained),
    }


def _received(collectives: list[tuple[str, int]], exchanged: list[nn.Parameter], sent: Sent, W: int) -> dict[str, int]:
    """Bytes that a rank receives, on rings."""
    received: Counter[str] = Counter()
    for name, count in collectives:
        received[f'neck and objective, {name.strip("_")}'] += RINGS.get(name, 1) * count * (W - 1) // W
    if exchanged:
        received['gradients, all_reduce'] = 2 * size(exchanged) * (W - 1) // W
    for what, count in sent:  # block by block
        received[f'fsdp, {what} of the encoder'] += count * (W - 1) // W
    return dict(received)


def _batch(count: int, views: list[tuple[int, ...]]) -> dict[str, Any]:
    numbers = torch.arange(count, device='meta')
    inputs = [torch.empty(count, *view, device='meta', dtype=torch.uint8) for view in views]
    return dict(inputs=inputs, sample_index=numbers, label=torch.zeros_like(numbers))
