"""torch's ``fully_shard`` on the meta device: what it gathers, lets go and sends is counted as a run does it, without memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import nn

from mmkernel.engine.encoder_shards import spread_encoders

Sent = list[tuple[str, int]]


@contextmanager
def spread_on_meta(model: nn.Module | None) -> Iterator[Sent]:
    """``spread_encoders`` of a meta ``model``; inside, its passes gather and let go. Yields (what, bytes of all ranks) of each
    collective, in order.

    None spreads nothing. torch refuses meta tensors in three places, which are replaced inside; where a version of torch has
    others, that is an AttributeError.
    """
    sent: Sent = []
    if model is None:
        yield sent
        return
    from torch.distributed.fsdp._fully_shard import _fsdp_collectives, _fsdp_param_group, _fully_shard

    def gather(_: Any, output_tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        sent.append(('weights', output_tensor.nbytes))

    def scatter(_: Any, output_tensor: torch.Tensor, input_tensor: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        sent.append(('gradients', input_tensor.nbytes))

    with (
        mock.patch.object(
            torch, 'meta', torch.cpu, create=True
        ),  # streams and events, of which the CPU has none either
        mock.patch.object(_fully_shard, '_get_device_from_mesh', return_value=torch.device('meta')),
        mock.patch.object(_fsdp_param_group.FSDPParamGroup, '_validate_no_meta_params'),
        mock.patch.object(_fsdp_collectives.DefaultAllGather, '__call__', gather),
        mock.patch.object(_fsdp_collectives.DefaultReduceScatter, '__call__', scatter),
    ):
        spread_encoders(model, torch.device('cpu'))
        yield sent
