"""Sizes of the images that a network will see, and whether it can see them."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from mmkernel.distributed.shards import is_spread
from mmkernel.registry import MODELS, accepted_keywords

Size = tuple[int, int]  # height and width in pixels
REFUSALS = (AssertionError, IndexError, RuntimeError, TypeError, ValueError)


def view_sizes(cfg: Mapping[str, Any]) -> list[Size]:
    """The different sizes of the views that a config makes, in their order; views as large as their image have none."""
    views = ((cfg.get('train_dataloader') or {}).get('dataset') or {}).get('views')
    views = views.values() if isinstance(views, Mapping) else ()
    sizes = (view.get('size') for view in views if isinstance(view, Mapping))
    return list(dict.fromkeys(_pair(size) for size in sizes if size is not None))


def evaluation_size(cfg: Mapping[str, Any]) -> Size | None:
    """Of the images that a config evaluates: the crop, the resized image or the images of the source; None: not said."""
    part = cfg.get('evaluation') or {}
    view = part.get('transform') or {}
    sizes = view.get('crop'), view.get('resize'), (part.get('test') or {}).get('size')
    return next((_pair(size) for size in sizes if size is not None), None)


def with_image_sizes(model: dict, cfg: Mapping[str, Any]) -> dict:
    """The config ``model`` with all sizes that ``cfg`` has in its backbone, if the class of that wants to know them."""
    backbone = model.get('backbone')
    if not isinstance(backbone, Mapping) or backbone.get('image_sizes') is not None:
        return model
    factory = backbone.get('type')
    factory = MODELS.get(factory) if isinstance(factory, str) else factory
    if factory is None or 'image_sizes' not in accepted_keywords(factory)[0]:
        return model
    sizes = {*view_sizes(cfg), evaluation_size(cfg)} - {None}
    return {**model, 'backbone': {**backbone, 'image_sizes': sorted(sizes)}}


def _pair(size: int | Sequence[int]) -> Size:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def check_sizes(backbone: nn.Module, sizes: Sequence[Size]) -> None:
    """ValueError for the first of ``sizes`` that a network of timm does not take: images without memory are tried.

    Networks that timm calls free of a fixed size, and modules of others, are not tried. Those that ``fsdp`` has spread over ranks
    cannot be copied: their first forward pass says the same.
    """
    fixed = getattr(backbone, 'pretrained_cfg', {}).get('fixed_input_size')
    if not fixed or any(is_spread(p) for p in backbone.parameters()):
        return
    own = getattr(getattr(backbone, 'patch_embed', None), 'img_size', None)
    tensors = [*backbone.parameters(), *backbone.buffers()]
    meta = {id(x): nn.Parameter(x.detach().to('meta'), x.requires_grad) if isinstance(x, nn.Parameter) else x.to('meta')
            for x in tensors}  # fmt: skip
    trial = copy.deepcopy(backbone, meta).eval()  # shares nothing with ``backbone``, and copies no tensor
    for size in (size for size in sizes if size != own):
        with named_sizes(backbone, [size], REFUSALS), torch.no_grad():
            trial(torch.empty(2, getattr(backbone, 'in_chans', 3), *size, device='meta'))


@contextmanager
def named_sizes(backbone: nn.Module, sizes: Sequence[Size], refusals: tuple = (AssertionError,)) -> Iterator[None]:
    """An error of ``refusals`` inside, which timm raises for images of another size, becomes a ValueError with a way out."""
    try:
        yield
    except refusals as error:
        pixels = ', '.join(f'{h} x {w}' for h, w in sorted(set(sizes)))
        way_out = _way_out(backbone, sizes, str(error))
        raise ValueError(f'{str(error).rstrip(".")}. The images have {pixels} px: {way_out}') from error


def _way_out(backbone: nn.Module, sizes: Sequence[Size], error: str) -> str:
    flexible = getattr(backbone, 'dynamic_img_size', None)  # None: the network has no such option
    patch = getattr(getattr(backbone, 'patch_embed', None), 'patch_size', None) or (1, 1)
    odd = next((n for size in sizes for n, p in zip(size, patch, strict=True) if n % p), None)
    if odd and 'divisible' in error:
        near = ' or '.join(str(n) for n in (odd // patch[0] * patch[0], -(-odd // patch[0]) * patch[0]) if n)
        pad = (
            'dynamic_img_pad=True of the backbone, which adds zeros (--cfg-options model.backbone.dynamic_img_pad=True)'
        )
        fill = f', or {pad}' if flexible else ''
        return f'take a multiple of the patch ({near}){fill}.'
    if flexible is False:
        return (
            'dynamic_img_size=True of the backbone takes other sizes than img_size (--cfg-options '
            'model.backbone.dynamic_img_size=True), img_size=... builds it for one.'
        )
    return (
        'this network takes images of one size alone. img_size=... builds it for another; for several, take a ResNet, a '
        'ConvNeXt, a Swin or a plain vision transformer (vit_*, eva*, deit*).'
    )
