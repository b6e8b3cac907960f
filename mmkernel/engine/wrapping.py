"""From a built model to the one that trains: device, memory format, batch norm over processes, gradient exchange."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def wrap_model(model: nn.Module, cfg: Mapping[str, Any], distributed: bool) -> nn.Module:
    """``model`` on its device as ``cfg`` asks for it; where ``distributed``, inside DistributedDataParallel.

    Keys of ``cfg``: ``channels_last``, ``sync_bn``, ``find_unused_parameters``, ``model_wrapper_cfg`` (another wrapper, or
    keywords for this one).
    """
    if is_model_wrapper(model):
        return model
    device = torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')
    model = model.to(device)
    if cfg.get('channels_last'):
        model = model.to(memory_format=torch.channels_last)
        if hasattr(getattr(model, 'data_preprocessor', None), 'channels_last'):
            model.data_preprocessor.channels_last = True
    if not distributed:
        return revert_sync_batchnorm(model)
    if device.type == 'cuda' and cfg.get('sync_bn'):
        from timm.layers import convert_sync_batchnorm  # keeps timm's fused norm + activation layers whole

        model = convert_sync_batchnorm(model)
    elif cfg.get('sync_bn'):
        print_log('SyncBN does not exist on CPU: batch-norm statistics are those of each process.', 'current')
    for tensor in model.state_dict().values():
        broadcast(tensor)
    asked = {'type': 'MMDistributedDataParallel', **(cfg.get('model_wrapper_cfg') or {})}
    if asked['type'] != 'MMDistributedDataParallel':
        return MODEL_WRAPPERS.build({**asked, 'module': model})
    # newer versions of torch renamed the flag and warn about the old name
    renamed = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel.__init__).parameters
    own = dict(
        device_ids=[device.index] if device.type == 'cuda' else None,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        **{'forward_sync_buffers' if renamed else 'broadcast_buffers': False},
    )
    return MODEL_WRAPPERS.build({**own, **asked, 'module': model})
