"""Writers of an encoder for other libraries. Each returns the model that the library builds from the file."""

import json
import pickle
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from safetensors.torch import load_file
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from mmkernel.writing import replacing
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.files import read_checkpoint, write_checkpoint, write_safetensors
from mmkernel.zoo.name_rules import key_maps
from mmkernel.zoo.opening import load
from mmkernel.zoo.tensor_names import find_weights

Run = Callable[[Tensor], Tensor]  # uint8 images (B, C, H, W) -> (B, d)
ONNX_NEEDS = ('onnx', 'onnxruntime', 'onnxscript')
OURS = (
    'type', 'model_name', 'small_images', 'in_channels', 'zero_init_residual', 'pretrained', 'fixed_positions', 'fixed_patches',
    'image_sizes', 'width',
)  # fmt: skip


class ExportError(ValueError):
    """An encoder that a target cannot represent, or that gives other features there."""


def to_safetensors(encoder: Encoder, path: Path) -> Run:
    """The format of published weights: the header describes the encoder."""
    write_safetensors(encoder.state_dict(), path, encoder.metadata())
    return load(path)


def _on_normalised(encoder: Encoder, model: nn.Module) -> Run:
    return lambda images: model.eval()(encoder.data_preprocessor.normalize(images))


def to_timm(encoder: Encoder, path: Path) -> Run:
    """A state dict for ``timm.create_model(NAME, num_classes=0, checkpoint_path=path)``."""
    arguments = timm_arguments(encoder)
    write_safetensors(encoder.backbone.state_dict(), path, encoder.metadata())
    return _on_normalised(encoder, timm.create_model(**arguments, checkpoint_path=str(path)))


def to_hf(encoder: Encoder, path: Path) -> Run:
    """A folder as on the Hugging Face hub: ``timm.create_model('local-dir:PATH')`` offline, or 'hf-hub:...' once uploaded."""
    arguments = timm_arguments(encoder)
    name, pixels = arguments.pop('model_name'), encoder.pixels
    data = {key: pixels[key] for key in ('mean', 'std', 'interpolation')}
    data |= dict(input_size=[encoder.channels, *pixels['size']], license=encoder.facts.get('license', ''))
    data['crop_pct'] = pixels['size'][0] / pixels['resize'] if pixels['resize'] else 1.0
    path.mkdir(parents=True)
    plain = timm.create_model(name, **arguments)
    plain.load_state_dict(encoder.backbone.state_dict())
    save_for_hf(plain, str(path), model_config=dict(pretrained_cfg=data), model_args=arguments, safe_serialization=True)
    config = json.loads((path / 'config.json').read_text(encoding='utf-8'))
    for key in ('tag', 'origin_url', 'paper_ids', 'paper_name', 'paper_url', 'notes', 'description'):
        config['pretrained_cfg'].pop(key, None)  # of timm's own weights, which these are not
    (path / 'config.json').write_text(json.dumps(config, indent=2), encoding='utf-8')
    weights = path / 'model.safetensors'
    write_safetensors(load_file(weights), weights, dict(format='pt'))  # readable by others
    return _on_normalised(encoder, timm.create_model(f'local-dir:{path}', pretrained=True))


def timm_arguments(encoder: Encoder) -> dict[str, Any]:
    """What timm's ``create_model`` needs to build the same network; ExportError if it cannot."""
    options = encoder.options
    if options.get('small_images'):
        raise ExportError(
            'timm and torchvision build no ResNet with the 3x3 stem of small_images=True. Take safetensors, onnx.'
        )
    if options.get('width', 1) != 1:
        raise ExportError('timm and torchvision build no ResNet of several times the width. Take safetensors, onnx.')
    extra = {key: value for key, value in options.items() if key not in OURS}
    return dict(model_name=options['model_name'], num_classes=0, in_chans=encoder.channels, **extra)


def to_torchvision(encoder: Encoder, path: Path) -> Run:
    """A state dict for ``load_state_dict`` of a torchvision model whose classifier is ``nn.Identity()``."""
    timm_arguments(encoder)
    state = encoder.backbone.state_dict()
    if hasattr(encoder.backbone, 'blocks'):
        model, state = _torchvision_vit(encoder), key_maps()['to_torchvision_vit'].apply(state, 'the encoder')
    else:
        names = [name for name in torchvision.models.list_models(torchvision.models) if 'resne' in name]
        model = _torchvision_resnet(encoder, names, 'torchvision')
    _check_tensors(state, model, f"torchvision's {type(model).__name__}")
    write_checkpoint({key: value.detach().cpu() for key, value in state.items()}, path)
    model.load_state_dict(read_checkpoint(path))
    return _on_normalised(encoder, model)


def _torchvision_resnet(encoder: Encoder, names: Sequence[str], where: str) -> nn.Module:
    name = encoder.options['model_name'].split('.')[0]
    if name not in names:
        raise ExportError(f"{where} has no place for a '{name}'; it takes {', '.join(names)}.")
    model = torchvision.models.get_model(name, weights=None)
    model.fc = nn.Identity()
    return model


def _check_tensors(state: Mapping[str, Tensor], model: nn.Module, where: str) -> None:
    own, given = ({key: tuple(value.shape) for key, value in each.items()} for each in (model.state_dict(), state))
    differing = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    if differing:
        raise ExportError(
            f'{where} differs in {len(differing)} tensors, first {differing[0]} (here {given.get(differing[0])}, there '
            f'{own.get(differing[0])}). Take --to timm or --to safetensors.'
        )


def _torchvision_vit(encoder: Encoder) -> nn.Module:
    ours = encoder.backbone
    block, size = ours.blocks[0], ours.patch_embed.img_size
    if encoder.channels != 3 or size[0] != size[1] or getattr(ours, 'global_pool', 'token') != 'token':
        raise ExportError("torchvision's vision transformers take square RGB images and give the class token.")
    patch, heads, hidden = ours.patch_embed.patch_size[0], block.attn.num_heads, block.mlp.fc1.out_features
    model = VisionTransformer(size[0], patch, len(ours.blocks), heads, ours.embed_dim, hidden)
    model.heads = nn.Identity()
    return model


def detector_weights(encoder: Encoder, target: str) -> dict[str, Tensor]:
    """The tensors of a ResNet, stride in the 3x3 convolution, as 'mmdet', 'mmseg' (torchvision's names) or 'detectron2' call them.

    ExportError for any other network, which these frameworks cannot build.
    """
    state = encoder.backbone.state_dict()
    with torch.device('meta'):
        model = _torchvision_resnet(encoder, [f'resnet{depth}' for depth in (18, 34, 50, 101, 152)], target)
    _check_tensors(state, model, f'the ResNet of {target}')
    return key_maps()['to_detectron2'].apply(state) if target == 'detectron2' else state


def to_detector(encoder: Encoder, path: Path, target: str) -> None:
    """Weights for a detection framework. It is not run here; the file is read back and its tensors are compared instead.

    A .pth, or a .pkl of arrays for detectron2; mean and std are kept beside the weights, on the 0..255 scale.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in detector_weights(encoder, target).items()}
    pixels = {f'pixel_{key}': [255 * value for value in encoder.pixels[key]] for key in ('mean', 'std')}
    pixels['channel_order'] = 'RGB'
    if target == 'detectron2':
        arrays = {key: value.numpy() for key, value in weights.items()}
        content = dict(model=arrays, matching_heuristics=True, __author__='mmkernel', **pixels)
        with replacing(path) as partial:
            partial.write_bytes(pickle.dumps(content))
    else:
        write_checkpoint(dict(state_dict=weights, meta=pixels), path)
    layout = target if target == 'detectron2' else None
    back, _ = find_weights(encoder.backbone, read_checkpoint(path), str(path), layout)
    state = encoder.backbone.state_dict()
    wrong = [key for key in {**state, **back} if key not in back or not torch.equal(back[key], state[key])]
    if wrong:
        raise ExportError(f'{target}: {len(wrong)} tensors do not come back as they were, first {wrong[0]}.')


class _OnUnitImages(nn.Module):
    """backbone((images - mean) / std), images in 0..1: a graph that needs no preprocessing."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.backbone = encoder.backbone
        self.register_buffer('mean', torch.tensor(encoder.pixels['mean']).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(encoder.pixels['std']).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone((images - self.mean) / self.std)


def to_onnx(encoder: Encoder, path: Path) -> Run:
    """An ONNX graph for any batch size; the description of the encoder is in its metadata."""
    if not all(map(find_spec, ONNX_NEEDS)):
        raise ExportError(f'pip install {" ".join(ONNX_NEEDS)} (or mmkernel[onnx]).')
    import onnx
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            _OnUnitImages(encoder).eval(), (encoder.images(2).float() / 255,), input_names=['images'],
            output_names=['features'], dynamic_shapes=dict(images={0: torch.export.Dim('batch')}), dynamo=True, verbose=False,
        )  # fmt: skip
    model = program.model_proto
    onnx.helper.set_model_props(model, encoder.metadata())
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run(['features'], dict(images=(images / 255).numpy()))[0])
