"""The network that a file of weights holds, wherever it lies in it, without a config: see ``network_shapes``."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from mmkernel.limits import DAMAGED
from mmkernel.registry import MODELS
from mmkernel.zoo.network_shapes import NETWORKS, Network
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.tensor_names import Containers, Place, chosen_by, containers, renamings

STEM = ['conv1', 'bn1', 'layer1', 'layer2', 'layer3', 'layer4']


def recognised(content: Mapping, source: str, prefix: str | None = None) -> Network:
    """The network of a file, of its teacher where it has a student as well; CheckpointError says why it cannot be told."""
    inside = containers(content)
    for _, each in [('', inside), *renamings(inside, STEM)]:
        found = [(place, state) for place, state in _places(each) if prefix in (None, place.prefix, place.whole)]
        if found:
            return _one_of([one for one in found if not one[0].second] or found, source)
    keys = ', '.join([key for _, state in inside for key in state][:4]) or 'no tensors'
    raise CheckpointError(
        _unknown(source, f'it has {keys}, which are names of no ResNet and no plain vision transformer')
    )


def _one_of(found: list[tuple[Place, dict[str, Tensor]]], source: str) -> Network:
    try:
        networks = [next(make for key, make in NETWORKS.items() if key in state)(state) for _, state in found]
        if any(network.options != networks[0].options for network in networks):
            places = [place for place, _ in found]
            names = (f'{n.said} (prefix={chosen_by(p, places)!r})' for n, p in zip(networks, places, strict=True))
            raise CheckpointError(
                f"'{source}' holds {len(found)} networks: {', '.join(names)}. Choose one with prefix=."
            )
        with torch.device('meta'):
            model = MODELS.build(dict(networks[0].options)).state_dict()
        missing = [key for key in model if key not in found[0][1] and 'num_batches' not in key]
        sizes = [sum(tensor.numel() for tensor in each.values()) for each in (model, found[0][1])]
        if sizes[0] > sizes[1] + len(model) or len(missing) > 2:  # it would be filled in part at most
            raise ValueError(
                f'{networks[0].said} has {len(missing)} tensors that the file lacks ({", ".join(missing[:3])})'
            )
    except DAMAGED as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            _unknown(source, f'its shapes are of no network that they tell alone: {error}')
        ) from error
    return networks[0]


def _unknown(source: str, why: str) -> str:
    return (
        f"'{source}' does not say how its encoder is built, and {why}. Name its architecture (arch='resnet50', --arch resnet50) "
        'or its config (cfg=, --config).'
    )


def _places(inside: Containers) -> Iterator[tuple[Place, dict[str, Tensor]]]:
    """(place, the tensors below it) of each network."""
    for path, state in inside:
        for end in NETWORKS:
            for key in state:
                prefix = key.removesuffix(end)
                if prefix != key and (not prefix or prefix.endswith('.')):
                    below = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
                    yield Place(path, prefix), below
