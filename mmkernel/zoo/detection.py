"""Backbones for detection and segmentation: the key names of mmdetection, mmsegmentation and detectron2 for ResNets."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmkernel.evaluation.report import set_aside
from mmkernel.zoo.files import replacing
from mmkernel.zoo.layouts import backbone_of, key_maps

FRAMEWORKS = ('mmdetection', 'mmsegmentation', 'detectron2')
DEPTHS = (18, 34, 50, 101, 152)


def resnet_depth(state: Mapping[str, Tensor]) -> int:
    """18, 34, 50, 101 or 152: the ResNet of torchvision whose keys and shapes, without ``fc``, are those of ``state``.

    He et al., CVPR 2016, stride in the 3x3 convolution. ValueError that says what differs for any other network: those
    frameworks have no place for its weights, or another one.
    """
    from torchvision.models import resnet  # built without memory: only names and shapes are wanted

    given = {key: tuple(value.shape) for key, value in state.items()}
    nearest: tuple[int, list[str]] | None = None
    for depth in DEPTHS:
        with torch.device('meta'):
            model = getattr(resnet, f'resnet{depth}')()
        wanted = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.startswith('fc.')}
        differing = sorted(key for key in given.keys() | wanted.keys() if given.get(key) != wanted.get(key))
        if not differing:
            return depth
        if nearest is None or len(differing) < len(nearest[1]):
            nearest = depth, [f'{key} (given {given.get(key)}, expected {wanted.get(key)})' for key in differing]
    raise ValueError(
        f'These {len(given)} tensors are no ResNet-{", -".join(map(str, DEPTHS))}: nearest is ResNet-{nearest[0]}, with '
        f'{len(nearest[1])} differences: {"; ".join(nearest[1][:3])}. Detectors take three-channel images, a 7x7 first '
        'convolution (small_images=False) and a plain ResNet such as model_name="resnet50".'
    )


def to_framework(state: Mapping[str, Tensor], framework: str) -> dict[str, Tensor]:
    """The weights of a timm or torchvision ResNet (or of a whole model with ``backbone.``), named as ``framework`` does.

    mmdetection and mmsegmentation keep torchvision's names; those of detectron2 are rules of ``key_maps``.
    """
    _check(framework)
    state = backbone_of(state)
    resnet_depth(state)
    return key_maps()['to_detectron2'].apply(state) if framework == 'detectron2' else state


def from_framework(state: Mapping[str, Tensor], framework: str) -> dict[str, Tensor]:
    """The inverse of ``to_framework``: timm's names."""
    _check(framework)
    return backbone_of(key_maps()['detectron2'].apply(state) if framework == 'detectron2' else state)


def key_table(state: Mapping[str, Tensor], framework: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """(our name, the framework's, shape) of each tensor."""
    renamed = to_framework(state, framework)
    return [
        (ours, theirs, tuple(renamed[theirs].shape)) for ours, theirs in zip(backbone_of(state), renamed, strict=True)
    ]


def export_detection(
    state: Mapping[str, Tensor],
    path: str | os.PathLike,
    framework: str,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Path:
    """Write the backbone for ``framework``; the file appears whole or not at all, another is kept as NAME.old.

    mmdetection, mmsegmentation: a .pth for ``backbone.init_cfg=dict(type='Pretrained', checkpoint=path)``.
    detectron2: a .pkl of arrays for ``MODEL.WEIGHTS``, matched to the detector by detectron2's heuristics.
    ``mean``, ``std``: what the encoder was trained with (RGB, 0..1), kept beside the weights on the 0..255 scale.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in to_framework(state, framework).items()}
    pixels = dict(pixel_mean=[255 * m for m in mean], pixel_std=[255 * s for s in std], channel_order='RGB')
    path = Path(path)
    suffix = '.pkl' if framework == 'detectron2' else '.pth'
    if path.suffix != suffix:
        raise ValueError(f"'{path}': {framework} reads such weights from a file that ends in {suffix}.")
    with replacing(path) as partial:
        if framework == 'detectron2':
            arrays = {key: value.numpy() for key, value in weights.items()}
            content = dict(model=arrays, matching_heuristics=True, __author__='mmkernel', **pixels)
            partial.write_bytes(pickle.dumps(content))
        else:
            torch.save(dict(state_dict=weights, meta=pixels), partial)
        if path.exists():
            set_aside(path)
    return path


def _check(framework: str) -> None:
    if framework not in FRAMEWORKS:
        raise ValueError(f"framework='{framework}'; expected one of {', '.join(FRAMEWORKS)}.")
