"""Prepare a model for training: device, memory format, batch norm over processes, compilation, DistributedDataParallel."""

import inspect
import types
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint
from torch.utils.data import Dataset

from mmkernel.datasets import ViewDataset
from mmkernel.distributed import world_size
from mmkernel.distributed.shards import is_spread
from mmkernel.engine.encoder_shards import blocks_of, check_fsdp, spread_encoders
from mmkernel.engine.hooks import unwrap
from mmkernel.models.sharded import shards_of
from mmkernel.registry import check_keywords


def wrap_model(model: nn.Module, cfg: Mapping[str, Any], distributed: bool) -> nn.Module:
    """``model`` on its device as ``cfg`` asks for it; where ``distributed``, inside DistributedDataParallel.

    Keys of ``cfg``, none of which changes a name in the state dict:
        channels_last: True, False or 'auto': where convolutions run on CUDA.
        sync_bn: batch-norm statistics over all processes, on GPUs.
        activation_checkpointing: blocks of the backbone are computed again in the backward pass; bit for bit the same step.
        compile: True, or keywords of ``torch.compile``: backbone and neck, those of a momentum target too.
        fsdp: each process holds its part of the encoder; see ``encoder_shards.py``.
        find_unused_parameters, model_wrapper_cfg: keywords of DistributedDataParallel, or another wrapper.
    """
    if is_model_wrapper(model):
        return model
    device = torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')
    model = place_model(model, cfg, device)
    synced = distributed and cfg.get('sync_bn')
    if synced and device.type == 'cpu':
        print_log('SyncBN does not exist on CPU: batch-norm statistics are those of each process.', 'current')
    global_norms = [
        (neck, name, neck[int(name)]) for neck in model.modules() if hasattr(neck, 'norms_of_all_rows')
        for name in neck.norms_of_all_rows()
    ]  # fmt: skip
    # timm's conversion keeps its fused norm + activation layers whole
    model = convert_sync_batchnorm(model) if synced and device.type == 'cuda' else revert_sync_batchnorm(model)
    for neck, name, norm in global_norms:
        setattr(neck, name, norm)
    for key in ('activation_checkpointing', 'compile', 'fsdp'):
        if cfg.get(key) and getattr(model, 'backbone', None) is None:
            raise ValueError(f'{key} = {cfg[key]!r} works on model.backbone, which {type(model).__name__} lacks.')
    if cfg.get('activation_checkpointing'):
        checkpoint_blocks(model.backbone)
    if cfg.get('compile'):
        compile_encoder(model, **(cfg['compile'] if isinstance(cfg['compile'], Mapping) else {}))
    if distributed and cfg.get('fsdp') and world_size() > 1:
        send_weights(model)  # each process may have drawn its own
        spread_encoders(model, device)
    return _exchanging(model, cfg, device) if distributed else model


def place_model(model: nn.Module, cfg: Mapping[str, Any], device: torch.device) -> nn.Module:
    """``model`` on ``device``, in the memory format that ``cfg`` asks for."""
    model = model.to(device)
    if not cfg.get('fsdp') and wants_channels_last(cfg.get('channels_last', 'auto'), model, device):
        model.to(memory_format=torch.channels_last)  # weights; images as they come out of the preprocessor
        if hasattr(getattr(model, 'data_preprocessor', None), 'channels_last'):
            model.data_preprocessor.channels_last = True
    return model


def check_wrapping(cfg: Mapping[str, Any]) -> None:
    """ValueError for a value that ``wrap_model`` does not know, TypeError for a keyword that torch.compile does not take."""
    asked, compiled = cfg.get('channels_last'), cfg.get('compile')
    if not isinstance(asked, (bool, type(None))) and asked != 'auto':
        raise ValueError(f"channels_last = {asked!r}; expected True, False or 'auto' (where convolutions run on CUDA).")
    if isinstance(compiled, Mapping):
        check_keywords(torch.compile, [*compiled], 'compile')
    elif not isinstance(compiled, (bool, type(None))):
        raise ValueError(f'compile = {compiled!r}; expected True, False, or keywords of torch.compile: dict(mode=...).')
    if compiled and cfg.get('activation_checkpointing'):
        both = 'compile and activation_checkpointing do not go together'
        raise ValueError(f'{both}: --cfg-options compile=False, or --cfg-options activation_checkpointing=False.')
    check_fsdp(cfg)


def wants_channels_last(asked: bool | str | None, model: nn.Module, device: torch.device) -> bool:
    """Whether images are channels_last, the layout of tensor cores: as ``asked``, or for 'auto' where convolutions run on CUDA."""
    if asked != 'auto':
        return bool(asked)
    return device.type == 'cuda' and any(isinstance(module, nn.Conv2d) for module in model.modules())


def compile_encoder(model: nn.Module, **keywords: Any) -> None:
    """``torch.compile`` of backbone and neck in place; not of a neck that lies on several ranks and gathers inside.

    A second size of images compiles once more, with dynamic shapes.
    """
    for owner in (model, getattr(model, 'target', None)):
        for part in (getattr(owner, 'backbone', None), getattr(owner, 'neck', None)):
            if part is not None and not getattr(part, 'spread', False):
                part.compile(**keywords)


def checkpoint_blocks(backbone: nn.Module) -> None:
    """The backbone's blocks keep their inputs alone and are computed again in the backward pass. Chen et al., 2016."""
    blocks = list(blocks_of(backbone))
    if not blocks:
        raise ValueError(
            f'activation_checkpointing=True finds no blocks in {type(backbone).__name__}: modules of several layers inside a '
            'Sequential or ModuleList. Set it to False.'
        )
    for block in blocks:
        block.forward = types.MethodType(_checkpointed, block)  # deepcopy binds it to the copy


def _checkpointed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    forward = partial(type(block).forward, block)
    if not (torch.is_grad_enabled() and block.training):
        return forward(*args, **kwargs)

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:  # of the first pass and of the second
        return nullcontext(), _statistics_kept(block)

    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms inside do not change their running statistics: the first pass did already."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def place_views(dataset: Dataset, model: nn.Module) -> None:
    """Before workers start: leave operations of the views to the model's device, as ``dataset.views_on`` says.

    By itself only to a preprocessor that can finish views; ValueError for views_on='device' and one that cannot.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    if isinstance(dataset, ViewDataset) and hasattr(preprocessor, 'finish'):
        preprocessor.finish = dataset.place(preprocessor.device)
    elif isinstance(dataset, ViewDataset) and dataset.views_on == 'device':
        raise ValueError(
            f"train_dataloader.dataset.views_on='device': data_preprocessor is a {type(preprocessor).__name__}, which finishes no "
            "views. Use dict(type='ViewPreprocessor', mean=..., std=...), or views_on='worker'."
        )


def _exchanging(model: nn.Module, cfg: Mapping[str, Any], device: torch.device) -> nn.Module:
    """``model`` in DistributedDataParallel, whose buckets are the memory of the gradients."""
    asked = {'type': 'MMDistributedDataParallel', **(cfg.get('model_wrapper_cfg') or {})}
    if any(shards_of(model)) and asked['type'] != 'MMDistributedDataParallel':
        raise ValueError(
            f'model_wrapper_cfg.type = {asked["type"]!r} does not know of a sharded neck: leave it out, or set neck.sharded=False.'
        )
    if asked['type'] != 'MMDistributedDataParallel':
        return MODEL_WRAPPERS.build({**asked, 'module': model})
    if not any(p.requires_grad and not is_spread(p) for p in model.parameters()):
        return model  # nothing is left to exchange
    # newer versions of torch renamed the flag and warn about the old name
    renamed = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel.__init__).parameters
    own = dict(
        device_ids=[device.index] if device.type == 'cuda' else None,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        gradient_as_bucket_view=True,
        init_sync=False,  # the Runner sends weights and buffers to all processes once they are initialised
        **{'forward_sync_buffers' if renamed else 'broadcast_buffers': False},
    )
    return MODEL_WRAPPERS.build({**own, **asked, 'module': model})


def send_weights(model: nn.Module) -> None:
    """Send parameters and buffers of process 0 to all processes, each of which may have drawn its own; but for their shards.

    For a plain model and DistributedDataParallel; other wrappers send, or shard, them themselves.
    """
    if not is_model_wrapper(model) or isinstance(model, DistributedDataParallel):
        net = unwrap(model)
        own = {name for name, _ in shards_of(net)}
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if name not in own:
                broadcast(tensor.data)
