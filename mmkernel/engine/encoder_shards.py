"""``fsdp=True``: weights, gradients and optimizer state of the encoder lie on W ranks, 1/W on each. Zhao et al., VLDB 2023.

torch's ``fully_shard`` splits each parameter of the backbone, and of a momentum target's, by its first axis. A block gathers its
weights when it needs them and lets them go again, and the mean over ranks of a gradient goes to the rank that holds its
rows. All else of the model (neck, predictor, head: what an objective reads and a queue or a prototype moves) is left
to DistributedDataParallel, whose rule is the same mean.
"""

import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmkernel.distributed import world_size
from mmkernel.distributed.shards import Shard, is_spread
from mmkernel.models.sharded import shards_of


def check_fsdp(cfg: Mapping[str, Any]) -> None:
    """ValueError for keys of a config with which ``fsdp`` does not go together."""
    wrapper = (cfg.get('optim_wrapper') or {}).get('type') or 'PretrainOptimWrapper'
    others = {
        'compile': cfg.get('compile'),
        'channels_last': cfg.get('channels_last') is True,
        'model_wrapper_cfg': cfg.get('model_wrapper_cfg'),
        f'optim_wrapper.type={wrapper!r}': wrapper not in ('PretrainOptimWrapper', 'mmkernel.PretrainOptimWrapper'),
    }
    if cfg.get('fsdp') and (wrong := [key for key, value in others.items() if value]):
        raise ValueError(
            f'fsdp=True and {wrong[0]} do not go together. Leave the other out, or --cfg-options fsdp=False.'
        )


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """The innermost modules of several layers that stand in a container."""
    containers = (nn.Sequential, nn.ModuleList)
    for child in module.children():
        inner = list(blocks_of(child))
        if inner:
            yield from inner
        elif isinstance(module, containers) and not isinstance(child, containers) and any(child.children()):
            yield child


def spread_encoders(model: nn.Module, device: torch.device) -> None:
    """``fully_shard`` of backbones, block by block, whose weights are those of rank 0 already.

    DistributedDataParallel will leave them alone.
    """
    from torch.distributed.device_mesh import init_device_mesh  # half a second that other runs need not pay
    from torch.distributed.fsdp import fully_shard

    warnings.filterwarnings(
        'ignore', '.*(all_gather_into|reduce_scatter)_tensor', FutureWarning
    )  # torch's own old names
    mesh = init_device_mesh(device.type, (world_size(),))
    for owner in (model, getattr(model, 'target', None)):
        backbone = getattr(owner, 'backbone', None)
        if backbone is not None and owner is model:
            backbone.register_forward_hook(_no_view)
        for part in () if backbone is None else (*blocks_of(backbone), backbone):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
            if device.type == 'cpu':
                part.set_force_sum_reduction_for_comms(True)  # gloo has no mean
            if owner is not model:  # torch notes each pass, and forgets them in the backward pass that a target has not
                _replace_hooks(part, {-1: _gather}, {-1: _let_go})
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, [name for name, _ in shards_of(model)])


def _no_view(module: nn.Module, images: Any, features: Any) -> Any:
    """A class token is a view of all tokens, and ``fully_shard`` warns of an operation in place on one."""
    return features.clone() if isinstance(features, Tensor) and features._base is not None else features


def _gather(module: Any, inputs: Any) -> None:
    module.unshard()


def _let_go(module: Any, inputs: Any, output: Any) -> None:
    module.reshard()


def _replace_hooks(part: nn.Module, before: dict, after: dict) -> tuple[dict, dict]:
    """Call these at a forward pass of ``part`` instead of those that it has, which are returned."""
    had = part._forward_pre_hooks, part._forward_hooks
    part._forward_pre_hooks, part._forward_hooks = OrderedDict(before), OrderedDict(after)
    return had


@contextmanager
def whole_encoders(model: nn.Module) -> Iterator[None]:
    """Inside, each rank has whole encoders, and a forward pass asks nothing of the others. All ranks must come here."""
    parts = [part for part in model.modules() if hasattr(part, 'unshard')]
    hooks = [_replace_hooks(part, {}, {}) for part in parts]
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part, had in zip(parts, hooks, strict=True):
            part.reshard()
            _replace_hooks(part, *had)


class OwnParts:
    """This rank's rows of the parameters of an optimizer that ``fully_shard`` has spread: plain tensors, of the same memory.

    They take the places of those in its ``groups``, as ``Shard``. So the optimizer, norms and clipping do with them what they do
    with the shards of a neck. ``rows``: {id of a part: rows of the whole}.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.pairs: list[tuple[Shard, nn.Parameter]] = []
        for group in groups:
            for i, p in enumerate(group['params']):
                if is_spread(p):
                    group['params'][i] = Shard(p.to_local().detach(), p.requires_grad)
                    self.pairs.append((group['params'][i], p))
        self.rows = {id(own): len(p) for own, p in self.pairs}

    def take_gradients(self) -> None:
        for own, p in self.pairs:
            own.grad = None if p.grad is None else p.grad.to_local()

    def drop_gradients(self) -> None:
        for own, p in self.pairs:
            own.grad = p.grad = None
