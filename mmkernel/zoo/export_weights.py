"""Weights under the names of other libraries, read back by them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torchvision
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from mmkernel.zoo.files import read_checkpoint, write_checkpoint, write_safetensors
from mmkernel.zoo.key_map import key_maps
from mmkernel.zoo.portable import Portable, of_metadata
from mmkernel.zoo.recognise import load_content

Run = Callable[[Tensor], Tensor]  # normalised images (B, C, H, W) -> (B, d)
OURS = ('type', 'model_name', 'small_images', 'in_channels', 'zero_init_residual', 'pretrained')


class ExportError(ValueError):
    """An encoder that a target has no place for, or that gives something else there."""


def to_safetensors(encoder: Portable, path: Path) -> Run:
    """Our own format, which describes itself."""
    tensors = {f'backbone.{key}': value for key, value in encoder.backbone.state_dict().items()}
    write_safetensors(tensors, path, encoder.metadata())
    content = read_checkpoint(path)
    back = of_metadata(content['meta'], str(path))
    load_content(back.backbone, content, str(path))
    return back.backbone


def to_timm(encoder: Portable, path: Path) -> Run:
    """A state dict for ``timm.create_model(NAME, num_classes=0, checkpoint_path=path)``."""
    arguments = timm_arguments(encoder)
    write_safetensors(encoder.backbone.state_dict(), path, encoder.metadata())
    return timm.create_model(**arguments, checkpoint_path=str(path))


def to_hf(encoder: Portable, path: Path) -> Run:
    """A folder as on the Hugging Face hub: ``timm.create_model('local-dir:PATH')`` offline, or 'hf-hub:...' once uploaded."""
    arguments = timm_arguments(encoder)
    name, pixels = arguments.pop('model_name'), encoder.preprocessing
    data = dict(
        input_size=[encoder.channels, *pixels.size], mean=pixels.mean, std=pixels.std, interpolation=pixels.interpolation,
        crop_pct=pixels.size[0] / pixels.resize if pixels.resize else 1.0, license=encoder.facts.get('license', ''),
    )  # fmt: skip
    path.mkdir(parents=True)
    plain = timm.create_model(
        name, **arguments
    )  # ours may carry attributes and a classifier's settings of a pretraining
    plain.load_state_dict(encoder.backbone.state_dict())
    save_for_hf(plain, str(path), model_config=dict(pretrained_cfg=data), model_args=arguments, safe_serialization=True)
    _forget_origin(path / 'config.json')
    weights = path / 'model.safetensors'
    write_safetensors(load_file(weights), weights, dict(format='pt'))  # readable by others
    return timm.create_model(f'local-dir:{path}', pretrained=True)


def _forget_origin(path: Path) -> None:
    """timm's settings of the architecture name the paper and the data of timm's own weights, which these are not."""
    config = json.loads(path.read_text(encoding='utf-8'))
    for key in ('tag', 'origin_url', 'paper_ids', 'paper_name', 'paper_url', 'notes', 'description'):
        config['pretrained_cfg'].pop(key, None)
    path.write_text(json.dumps(config, indent=2), encoding='utf-8')


def timm_arguments(encoder: Portable) -> dict[str, Any]:
    """What timm's ``create_model`` needs to build the same network; ExportError if it cannot."""
    options = encoder.options
    if options.get('small_images'):
        raise ExportError(
            'timm and torchvision build no ResNet with the 3x3 stem of small_images=True. Targets that keep it: '
            'safetensors, torchscript, torch_export, onnx.'
        )
    extra = {key: value for key, value in options.items() if key not in OURS}
    return dict(model_name=options['model_name'], num_classes=0, in_chans=encoder.channels, **extra)


def to_torchvision(encoder: Portable, path: Path) -> Run:
    """A state dict for ``load_state_dict`` of a torchvision model whose classifier is ``nn.Identity()``."""
    timm_arguments(encoder)
    state = encoder.backbone.state_dict()
    if hasattr(encoder.backbone, 'blocks'):
        model, state = _torchvision_vit(encoder), key_maps()['to_torchvision_vit'].apply(state, 'the encoder')
    else:
        model = _torchvision_resnet(encoder.options['model_name'])
    own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    differing = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if differing:
        raise ExportError(
            f"torchvision's {type(model).__name__} differs in {len(differing)} tensors, first {differing[0]} (here "
            f'{given.get(differing[0])}, there {own.get(differing[0])}). Take --to timm or --to safetensors.'
        )
    write_checkpoint({key: value.detach().cpu() for key, value in state.items()}, path)
    model.load_state_dict(read_checkpoint(path))
    return model.eval()


def _torchvision_resnet(name: str) -> nn.Module:
    names = [n for n in torchvision.models.list_models(torchvision.models) if 'resne' in n]
    if name not in names:
        raise ExportError(f"torchvision has no '{name}'; it has {', '.join(names)} and vision transformers.")
    model = torchvision.models.get_model(name, weights=None)
    model.fc = nn.Identity()
    return model


def _torchvision_vit(encoder: Portable) -> nn.Module:
    ours = encoder.backbone
    block, size = ours.blocks[0], ours.patch_embed.img_size
    if encoder.channels != 3 or size[0] != size[1] or getattr(ours, 'global_pool', 'token') != 'token':
        raise ExportError("torchvision's vision transformers take square RGB images and give the class token.")
    model = VisionTransformer(
        size[0], ours.patch_embed.patch_size[0], len(ours.blocks), block.attn.num_heads, ours.embed_dim,
        block.mlp.fc1.out_features,
    )  # fmt: skip
    model.heads = nn.Identity()
    return model
