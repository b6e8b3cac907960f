"""Modules of which this rank holds a part, and what a model with a sharded neck may be made of."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from mmkernel.distributed.shards import Shard, is_spread, share_of
from mmkernel.models.norms import build_norm
from mmkernel.registry import MODELS


def spread(module: nn.Module, q: int) -> None:
    """Mark the parameters and buffers of ``module`` as this rank's rows of tensors of q rows."""
    module.shard_of = q
    for name, parameter in list(module.named_parameters(recurse=False)):
        setattr(module, name, Shard(parameter.data, parameter.requires_grad))


def shards_of(module: nn.Module) -> Iterator[tuple[str, int]]:
    """(name in the state dict, q) of every tensor of which this rank holds its rows of q: of a sharded neck, of ``fsdp``."""
    for path, part in module.named_modules():
        whole = getattr(part, 'shard_of', None)
        for name, x in {**part._parameters, **part._buffers}.items():
            if x is not None and x.ndim > 0 and (whole or is_spread(x)):
                yield f'{path}.{name}' if path else name, whole or len(x)


def norm_of_columns(norm: str | dict | None, q: int, word: str) -> nn.Module | None:
    """``build_norm`` for this rank's columns of all rows: batch norm, whose features do not meet.

    ValueError for another; ``word``: the argument that it comes from.
    """
    own = share_of(q)
    layer = build_norm(norm, own.stop - own.start)
    if layer is not None and not isinstance(layer, _BatchNorm):
        raise ValueError(
            f"MLPNeck: {word}={norm!r} mixes features, which lie on several ranks where the layer is sharded: take 'BN' or None."
        )
    if layer is not None:
        spread(layer, q)
    return layer


def keep_shards_apart(model: Any) -> None:
    """For a JointEmbedding with a sharded neck: DistributedDataParallel will not average the gradients of shards.

    ValueError where another part asks for rows of embeddings, of which the neck makes columns.
    """
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, [name for name, _ in shards_of(model)])
    if model.predictor is not None:
        raise ValueError('A predictor takes whole rows of embeddings: set predictor=None, or neck.sharded=False.')
    if model.neck_batching != 'view':
        raise ValueError(
            f"A sharded neck gathers the rows of each view: set neck_batching='view', not {model.neck_batching!r}."
        )
    if getattr(model.target, 'shuffle_bn', False) or getattr(model.target, 'sub_batches', 1) > 1:
        raise ValueError(
            'MomentumTarget: shuffle_bn and sub_batches reorder whole rows, of which a sharded neck has columns: leave both out, '
            'or set neck.sharded=False.'
        )
    if not getattr(model.head, 'takes_columns', False):
        known = sorted(name for name, kind in MODELS.module_dict.items() if getattr(kind, 'takes_columns', 0) is True)
        raise ValueError(
            f'{type(model.head).__name__} as configured has no form for the columns of a sharded neck. Heads that have: '
            f"{', '.join(known)} (on the sphere, layout='auto' or 'columns'), and a SumHead of these. Or set neck.sharded=False."
        )
