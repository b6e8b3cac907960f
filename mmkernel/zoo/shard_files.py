"""A checkpoint of shards: tensors that lie in a folder beside the file, written by torch.distributed.checkpoint."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmkernel.zoo.pins import CheckpointError


def read_shards(content: Mapping[str, Any], path: str | Path, tensors: dict[str, Tensor], alone: bool) -> None:
    """Fill ``tensors`` from the folder that ``content``, the file ``path``, names; ``alone``: without the other processes.

    CheckpointError where the folder is not beside the file, or is damaged.
    """
    import torch.distributed.checkpoint as dcp  # half a second that a list of names need not pay
    from torch.distributed.checkpoint.api import CheckpointException

    folder = Path(path).with_name(content['shards']['folder'])
    if not folder.is_dir():
        raise CheckpointError(
            f"'{path}' is a checkpoint of shards, and its folder '{folder.name}' is not beside it: copy both together."
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*assuming the intent is to load in a single process')
            dcp.load(tensors, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=alone)
    except (Exception, CheckpointException) as error:  # which is a BaseException
        raise CheckpointError(
            f"'{path}' is a checkpoint of shards, and its folder '{folder.name}' is damaged: {error}"
        ) from error


def with_whole_weights(content: dict[str, Any], path: str | Path) -> dict[str, Any]:
    """``content`` of the file ``path``, in which the weights are whole, wherever the file keeps them."""
    rows = content.get('shards', {}).get('rows', {})
    names = {label: label.removeprefix('state_dict/') for label in rows if label.startswith('state_dict/')}
    weights = dict(content['state_dict']) if names else {}
    left = {label: weights[name] for label, name in names.items() if len(weights[name]) == 0}
    if not left:
        return content
    tensors = {label: x.new_empty(rows[label], *x.shape[1:]) for label, x in left.items()}
    read_shards(content, path, tensors, alone=True)
    return {**content, 'state_dict': weights | {names[label]: x for label, x in tensors.items()}}
