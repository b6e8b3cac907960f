"""Backbones by their timm name."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import timm
import torch
from mmengine.logging import print_log
from timm.layers import build_sincos2d_pos_embed
from torch import nn

from mmkernel.checks import did_you_mean
from mmkernel.hashes import wrong_name
from mmkernel.registry import MODELS

# How networks that are built for one size of images are built for any: plain transformers, then those with windows.
ANY_SIZE = dict(dynamic_img_size=True, strict_img_size=False)


@MODELS.register_module()
def TIMMBackbone(
    model_name: str,
    small_images: bool = False,
    in_channels: int = 3,
    zero_init_residual: bool = False,
    width: int = 1,
    fixed_positions: bool = False,
    fixed_patches: bool = False,
    pretrained: bool = False,
    image_sizes: Sequence[tuple[int, int]] | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """h = pool(f(x)): any timm model without its classifier, (B, in_channels, H, W) -> (B, out_dim).

    It is timm's own module: the state dict has timm's key names, which for ResNets are torchvision's.

    Args:
        model_name: a name of ``timm.list_models()``.
        small_images: for images up to about 64 pixels, a 3x3 stem of stride 1 without pooling (He et al. 2016, CIFAR form).
        in_channels: channels of the images.
        zero_init_residual: each residual branch starts at zero (Goyal et al. 2017); ResNets only.
        width: times the channels of every layer, the stem included (He et al. 2016, Kolesnikov et al. 2019); ResNets only.
        fixed_positions: sines and cosines of row and column in place of a position embedding that is learnt (Chen, Xie & He,
            ICCV 2021; He et al., CVPR 2022); vision transformers only.
        fixed_patches: the random projection of the patches stays as it is, which keeps training stable (Chen, Xie & He,
            ICCV 2021, section 4); vision transformers only.
        pretrained: timm's weights, downloaded.
        image_sizes: heights and widths of the images that will come; a whole config fills in those of its views and of its
            evaluation. Several of them: the network is built for any size where timm has a way (``ANY_SIZE``).
        timm_kwargs: passed on, e.g. ``img_size``, ``patch_size``, ``drop_path_rate``, ``channels``.
    """
    if model_name not in timm.list_models():
        raise ValueError(f"timm has no model '{model_name}'. {did_you_mean(model_name, timm.list_models(), n=3)}")
    is_resnet = model_name in timm.list_models(module='resnet')
    if is_resnet:
        timm_kwargs['zero_init_last'] = zero_init_residual
    elif zero_init_residual:
        raise ValueError(f'zero_init_residual is for ResNets, got model_name = {model_name!r}.')
    _check_files(model_name, pretrained, timm_kwargs)
    if pretrained and (fixed_positions or fixed_patches):
        raise ValueError('fixed_positions and fixed_patches would overwrite pretrained weights: drop one or the other.')
    if width != 1:
        if not is_resnet or width < 1 or pretrained:
            raise ValueError(
                f'width multiplies the channels of a ResNet without weights, got width = {width}, {model_name}.'
            )
        timm_kwargs['channels'] = tuple(64 * width * 2**i for i in range(4))
    try:
        common = dict(pretrained=pretrained, num_classes=0, in_chans=in_channels)
        model = _create(model_name, len(set(image_sizes or ())) > 1, {**common, **timm_kwargs})
    except TypeError as error:
        raise TypeError(f'timm.create_model({model_name!r}) refused one of {sorted(timm_kwargs)}: {error}') from error
    if pretrained:
        _say_resampled(model, model_name)
    if width != 1:
        _widen_stem(model, 64 * width)
    for wanted, change in (
        (small_images, _use_small_stem), (fixed_positions, _fix_positions), (fixed_patches, _fix_patches),
    ):  # fmt: skip
        if wanted:
            change(model, model_name)
    model.out_dim = getattr(model, 'head_hidden_size', None) or model.num_features
    return model


def _create(model_name: str, several_sizes: bool, timm_kwargs: dict[str, Any]) -> nn.Module:
    for flexible in ANY_SIZE if several_sizes and not {*ANY_SIZE} & {*timm_kwargs} else ():
        with suppress(TypeError):  # of a network without this option
            return timm.create_model(model_name, **timm_kwargs, **{flexible: ANY_SIZE[flexible]})
    return timm.create_model(model_name, **timm_kwargs)


def _say_resampled(model: nn.Module, model_name: str) -> None:
    """timm resamples positions in silence."""
    trained, built = (
        model.pretrained_cfg['input_size'][1:],
        getattr(getattr(model, 'patch_embed', None), 'img_size', None),
    )
    if built and tuple(built) != tuple(trained):
        sizes = ' px, resampled for '.join(' x '.join(map(str, size)) for size in (trained, built))
        print_log(f'{model_name}: positions of weights for {sizes} px.', logger='current')


def _check_files(model_name: str, pretrained: bool, timm_kwargs: dict[str, Any]) -> None:
    """ValueError for files of weights that timm is to read and that have other bytes than their names tell."""
    sources = [timm_kwargs.get(key) for key in ('pretrained_cfg', 'pretrained_cfg_overlay')]
    files = [timm_kwargs.get('checkpoint_path'), *(s.get('file') for s in sources if isinstance(s, dict))]
    url = getattr(timm.get_pretrained_cfg(model_name), 'url', None) if pretrained else None
    if url:  # timm asks torch.hub, which looks at no file that it has already
        files.append(Path(torch.hub.get_dir(), 'checkpoints', Path(url).name))
    for file in filter(None, files):
        if Path(file).is_file() and (problem := wrong_name(Path(file))):
            raise ValueError(problem)


def _use_small_stem(model: nn.Module, model_name: str) -> None:
    conv = getattr(model, 'conv1', None)
    if not isinstance(conv, nn.Conv2d) or not hasattr(model, 'maxpool'):
        raise ValueError(
            f'small_images=True replaces the 7x7 stem and the pooling of a ResNet; {model_name} has no such stem. '
            'Pass what that model offers instead, e.g. patch_size=4, img_size=32 for a vision transformer.'
        )
    model.conv1 = _convolution(conv.in_channels, conv.out_channels, 3, 1, 1)
    model.maxpool = nn.Identity()


def _widen_stem(model: nn.Module, channels: int) -> None:
    """timm's stem always has 64 channels; widen it, and the layers of the first block that read it."""
    stem, first = model.conv1, model.layer1[0]
    if not isinstance(stem, nn.Conv2d):
        raise ValueError('width is for ResNets whose stem is one convolution (resnet18 ... resnet200).')
    model.conv1, model.bn1 = _resized(stem, out_channels=channels), nn.BatchNorm2d(channels)
    first.conv1 = _resized(first.conv1, in_channels=channels)
    first.downsample[0] = _resized(first.downsample[0], in_channels=channels)
    if first.downsample[0].out_channels == channels:  # a basic block: its input has its width again
        first.downsample = None


def _resized(conv: nn.Conv2d, in_channels: int | None = None, out_channels: int | None = None) -> nn.Conv2d:
    channels = in_channels or conv.in_channels, out_channels or conv.out_channels
    return _convolution(*channels, conv.kernel_size, conv.stride, conv.padding)


def _convolution(*args: Any) -> nn.Conv2d:
    """As timm makes and initialises those of a ResNet."""
    conv = nn.Conv2d(*args, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


@torch.no_grad()
def _fix_positions(model: nn.Module, model_name: str) -> None:
    """p_(i, j) = (sin w_k i, cos w_k i, sin w_k j, cos w_k j)_k with w_k = 10 000^(-4 k / d); the class token's is 0."""
    embedding, grid = getattr(model, 'pos_embed', None), getattr(getattr(model, 'patch_embed', None), 'grid_size', None)
    if not isinstance(embedding, nn.Parameter) or embedding.ndim != 3 or grid is None:
        raise ValueError(f'fixed_positions is for vision transformers with a position embedding, got {model_name}.')
    waves = build_sincos2d_pos_embed(list(grid), embedding.shape[2], interleave_sin_cos=True)
    embedding.zero_()
    embedding[0, embedding.shape[1] - len(waves) :] = waves
    embedding.requires_grad_(False)


def _fix_patches(model: nn.Module, model_name: str) -> None:
    """W ~ U(-a, a), a^2 = 6 / (inputs + outputs), and no bias: Glorot's, of a matrix (outputs, inputs of one patch)."""
    layer = getattr(getattr(model, 'patch_embed', None), 'proj', None)
    if not isinstance(layer, nn.Conv2d):
        raise ValueError(f'fixed_patches is for vision transformers whose patches are projected, got {model_name}.')
    bound = math.sqrt(6 / (layer.weight[0].numel() + layer.out_channels))
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    layer.requires_grad_(False)
