"""What network some tensors belong to, told by their names and shapes: ResNets and plain vision transformers.

What shapes do not tell is named beside the answer (the number of heads), or is an error where two answers are usual.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkernel.limits import DAMAGED

# (has bottlenecks, blocks of each stage) -> its name (He et al., CVPR 2016)
RESNETS = {
    (False, (2, 2, 2, 2)): 'resnet18', (False, (3, 4, 6, 3)): 'resnet34', (True, (3, 4, 6, 3)): 'resnet50',
    (True, (3, 4, 23, 3)): 'resnet101', (True, (3, 8, 36, 3)): 'resnet152', (True, (3, 24, 36, 3)): 'resnet200',
}  # fmt: skip
# width -> (its name, layers, heads) (Dosovitskiy et al., ICLR 2021; Touvron et al., ICML 2021; Zhai et al., CVPR 2022)
TRANSFORMERS = {
    192: ('tiny', 12, 3), 384: ('small', 12, 6), 768: ('base', 12, 12), 1024: ('large', 24, 16), 1280: ('huge', 32, 16),
    1408: ('giant', 40, 16),
}  # fmt: skip
PIXELS = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation='bicubic', crop_pct=0.875)


class Network(NamedTuple):
    """What builds it, and the side of its images; ``said``: what its shapes tell, in words; ``assumed``: what they do not."""

    options: dict[str, Any]
    size: int | None
    said: str
    assumed: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Of its images, as ``Encoder.from_timm`` takes them."""
        return PIXELS | {'input_size': (self.options['in_channels'], self.size, self.size) if self.size else None}


def _count(state: Mapping[str, Tensor], start: str) -> int:
    return len({key.removeprefix(start).split('.')[0] for key in state if key.startswith(start)})


def resnet(state: dict[str, Tensor]) -> Network:
    """ValueError with what is unusual."""
    if 'conv1.weight' not in state or any('.se.' in key for key in state):
        raise ValueError("a ResNet without 'conv1.weight', or with squeeze and excitation")
    stem, deep = state['conv1.weight'], 'layer1.0.conv3.weight' in state
    layers = tuple(_count(state, f'layer{i}.') for i in range(1, 5))
    outputs = [state[f'layer{i}.0.conv{3 if deep else 2}.weight'].shape[0] // (4 if deep else 1) for i in range(1, 5)]
    name = RESNETS.get((deep, layers), 'resnet50' if deep else 'resnet18')
    options = dict(type='TIMMBackbone', model_name=name, in_channels=stem.shape[1])
    options |= {'layers': layers} if (deep, layers) not in RESNETS else {}
    options |= {'small_images': True} if stem.shape[2:] == (3, 3) else {}
    width = stem.shape[0] // 64
    if outputs != [64 * width * 2**i for i in range(4)]:
        options['channels'] = tuple(outputs)
    elif width > 1:
        options['width'] = width
    if deep:
        inner = state['layer1.0.conv2.weight']
        groups = inner.shape[0] // inner.shape[1]
        if (each := inner.shape[0] * 64 // (outputs[0] * groups)) != 64 or groups > 1:
            options |= dict(cardinality=groups, base_width=each)
    said = f'{name} ({", ".join(f"{k}={v}" for k, v in list(options.items())[3:])})'.replace(' ()', '')
    small = 'small_images' in options
    return Network(options, None if small else 224, said, ('stride 1 and no pooling in the 3x3 stem',) * small)


def transformer(state: dict[str, Tensor]) -> Network:
    """ValueError with what is unusual."""
    stem, positions = state.get('patch_embed.proj.weight'), state.get('pos_embed')
    if stem is None or stem.ndim != 4 or stem.shape[2] != stem.shape[3] or positions is None or 'dist_token' in state:
        raise ValueError('a transformer without a table of positions or square patches, or a distilled one')
    width, depth, patch, hidden = (
        stem.shape[0],
        _count(state, 'blocks.'),
        stem.shape[2],
        state['blocks.0.mlp.fc1.weight'].shape[0],
    )
    if width not in TRANSFORMERS:
        raise ValueError(f'the number of heads of a transformer of width {width} is not told by its tensors')
    name, usual, heads = TRANSFORMERS[width]
    tokens, registers = int('cls_token' in state), state.get('reg_token', state.get('register_tokens', stem[:0]))
    count = registers.shape[1] if registers.ndim == 3 else 0
    side, apart = _grid(positions.shape[1], tokens, count)
    if width == 384 and _are_waves(positions[0, -side * side :]):
        raise ValueError(
            'fixed positions and a width of 384 go with 6 heads or with 12 (Chen, Xie & He, ICCV 2021), which no tensor tells: '
            f"arch=dict(model_name='vit_small_patch{patch}_224', num_heads=12, img_size={side * patch}) or 6"
        )
    options = dict(
        type='TIMMBackbone', model_name=f'vit_{name}_patch{14 if width > 1024 else 16}_224', in_channels=stem.shape[1]
    )
    options |= dict(patch_size=patch, img_size=side * patch, num_heads=heads)
    no_token = dict(class_token=False, global_pool='avg', fc_norm='fc_norm.weight' in state)
    for wanted, more in (
        (depth != usual, dict(depth=depth)), (hidden != 4 * width, dict(mlp_ratio=hidden / width)), (count, dict(reg_tokens=count)),
        (apart, dict(no_embed_class=True)), ('blocks.0.ls1.gamma' in state, dict(init_values=1e-5)),
        ('blocks.0.attn.qkv.bias' not in state, dict(qkv_bias=False)), ('blocks.0.attn.q_norm.weight' in state, dict(qk_norm=True)),
        ('norm_pre.weight' in state, dict(pre_norm=True)), ('fc_norm.weight' in state, dict(global_pool='avg')),
        (not tokens, no_token),
    ):  # fmt: skip
        options |= more if wanted else {}
    said = f'a {name} vision transformer of {depth} layers, {side} x {side} patches of {patch} pixels'
    said = ', '.join([said, *(f'{key}={value}' for key, value in list(options.items())[6:] if key != 'depth')])
    return Network(options, side * patch, said, (f'{heads} heads, as usual at this width',))


def _grid(count: int, tokens: int, registers: int) -> tuple[int, bool]:
    """(rows of patches among ``count`` positions, whether the class token has none of its own in the model)."""
    for others, apart in ((tokens + registers, False), (0, True), (tokens, True)):
        side = math.isqrt(max(count - others, 0))
        if side and side * side == count - others:
            return side, apart and tokens > 0
    raise ValueError(f'{count} positions, which are no square of patches')


def _are_waves(positions: Tensor) -> bool:
    """Whether each row is of sines and cosines: its squares sum to half of its length."""
    squares = positions.double().square().sum(1)
    return bool(torch.allclose(squares, torch.full_like(squares, positions.shape[1] / 2), rtol=1e-3))


# by a tensor that each has
NETWORKS = {'layer1.0.conv1.weight': resnet, 'blocks.0.attn.qkv.weight': transformer}


def differing(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """A sentence on two networks, that of a model and that of a file; '' where shapes do not tell both, or tell the same."""
    said = []
    for each in (state, own):
        inside = {key.removeprefix('backbone.'): value for key, value in each.items()}
        network = next((make for key, make in NETWORKS.items() if key in inside), None)
        with suppress(*DAMAGED):
            said += [network(inside).said] if network else []
    return f'The file holds {said[0]}, the model is {said[1]}.' if len({*said}) == 2 else ''
