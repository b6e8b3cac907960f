"""Export an encoder to another library: write it, read it back there, compare features, then move it into place; model cards."""

import copy
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmkernel.writing import temporary_name, writable
from mmkernel.zoo import export_targets as targets
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.export_targets import ExportError

TOLERANCE = 1e-4  # of the largest feature, for kernels that add in another order. Renamed weights give 0


class Target(NamedTuple):
    """``write`` writes the encoder and returns the model that the target reads back, None if it cannot be run here."""

    suffix: str
    write: Callable[[Encoder, Path], Callable | None]
    how: str  # code that uses it; {path} and {arguments} (of timm's create_model) are filled in


class Exported(NamedTuple):
    """``difference``: the largest between features of 3 images, relative to the largest feature; None: not loaded in target."""

    path: Path
    difference: float | None
    how: str

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return 'not loaded in target; read back, and every tensor equal under its old name'
        return f'read back and run: largest difference of features {self.difference:.2g} of the largest'


USE = {
    'hf': """```python
import timm
model = timm.create_model('local-dir:.', pretrained=True)  # the folder with this page
```""",
    'safetensors': """```python
from mmkernel.zoo import get_features, load
features = get_features(load('{file}'), ['image.png'])
```""",
}
INIT_CFG = "backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='{path}'))"
TARGETS = {
    'safetensors': Target('.safetensors', targets.to_safetensors, "mmkernel.load('{path}')"),
    'timm': Target('.safetensors', targets.to_timm, "timm.create_model({arguments}, checkpoint_path='{path}')"),
    'hf': Target('', targets.to_hf, "timm.create_model('local-dir:{path}', pretrained=True)"),
    'torchvision': Target(
        '.pth', targets.to_torchvision,
        "model.fc = nn.Identity()  # vision transformers: model.heads\nmodel.load_state_dict(torch.load('{path}'))",
    ),
    'onnx': Target(
        '.onnx', targets.to_onnx,
        "onnxruntime.InferenceSession('{path}').run(['features'], dict(images=images in 0..1))",
    ),
    'mmdet': Target('.pth', partial(targets.to_detector, target='mmdet'), INIT_CFG),
    'mmseg': Target('.pth', partial(targets.to_detector, target='mmseg'), INIT_CFG),
    'detectron2': Target('.pkl', partial(targets.to_detector, target='detectron2'), "cfg.MODEL.WEIGHTS = '{path}'"),
}  # fmt: skip


def export_model(encoder: Encoder, target: str, path: str | Path, force: bool = False) -> Exported:
    """Write ``encoder`` for ``target``, one of ``TARGETS``. The file appears only if the target gives the same features.

    A copy on the CPU, in float32 and eval mode, is exported; the encoder itself does not change.

    Errors: ExportError for an unknown target, an encoder that it has no place for, a wrong ending of ``path``, or features
    that differ; FileExistsError without ``force``; TypeError for a model that is no ``Encoder``.
    """
    if not isinstance(encoder, Encoder):
        raise TypeError(f'expected an encoder of get_model(name), got {type(encoder).__name__}.')
    if target not in TARGETS:
        raise ExportError(f"there is no target '{target}'; expected one of {', '.join(TARGETS)}.")
    chosen, path = TARGETS[target], Path(path)
    if chosen.suffix and path.suffix != chosen.suffix:
        raise ExportError(f"'{path}': {target} wants a file that ends in {chosen.suffix}.")
    if path.exists() and not force:
        raise FileExistsError(f"'{path}' is there already; --force replaces it.")
    written = temporary_name(writable(path, None), path.suffix)
    encoder = copy.deepcopy(encoder).cpu().float().eval()
    reference(encoder)  # a clear error, before the target raises its own
    try:
        run = chosen.write(encoder, written)
        difference = None if run is None else compare(encoder, run)
        if difference is not None and not difference <= TOLERANCE:
            said = f'they differ by {difference:.2g} of the largest (at most {TOLERANCE:.0g} is rounding)'
            raise ExportError(
                f'{target} gives other features: {said}. Nothing was written; please report this network.'
            )
        if written.is_dir():
            (written / 'README.md').write_text(model_card(encoder, target), encoding='utf-8')
        _place(written, path)
    finally:
        if written.is_dir():
            shutil.rmtree(written)
        written.unlink(missing_ok=True)
    arguments = targets.timm_arguments(encoder) if '{arguments}' in chosen.how else {}
    text = ', '.join(f'{key}={value!r}' for key, value in arguments.items())
    return Exported(path, difference, chosen.how.format(path=path, arguments=text))


def reference(encoder: Encoder) -> tuple[torch.Tensor, torch.Tensor]:
    """(three images, their features); ExportError if the encoder takes others."""
    images = encoder.images(3, seed=1)
    try:
        return images, encoder.extract(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ExportError(
            f'the encoder does not take images of {tuple(images.shape[1:])}: {error}. Give another --size.'
        ) from error


@torch.no_grad()
def compare(encoder: Encoder, run: Callable) -> float:
    """Largest difference of the features of three images. (Graphs are traced with two.)"""
    images, want = reference(encoder)
    given: Any = run(images)
    if given.shape != want.shape:
        raise ExportError(f'features of shape {tuple(given.shape)}; expected {tuple(want.shape)}.')
    return float((given - want).abs().max() / want.abs().max().clamp_min(1e-30))


def _place(partial: Path, path: Path) -> None:
    if path.is_dir():
        strange = sorted({p.name for p in path.iterdir()} - {'README.md', 'config.json', 'model.safetensors'})
        if strange:
            raise FileExistsError(
                f"'{path}' holds {', '.join(strange[:4])}, which no export wrote: choose another folder."
            )
        before = path.rename(temporary_name(path))
        partial.rename(path)
        return shutil.rmtree(before)
    os.replace(partial, path)


def model_card(encoder: Encoder, target: str = 'safetensors', file: str = 'model.safetensors') -> str:
    """Markdown with the header that the Hugging Face hub reads; missing facts are listed as not stated."""
    facts, pixels, options = encoder.facts, encoder.pixels, encoder.options
    numbers = {key: ', '.join(f'{value:g}' for value in pixels[key]) for key in ('mean', 'std')}
    size = ' x '.join(map(str, pixels['size']))
    channels = f'{encoder.channels} channel{"s" if encoder.channels > 1 else ""}'
    more = ', '.join(f'{key}={value}' for key, value in options.items() if key not in ('type', 'model_name'))
    network = f'{options.get("model_name", options.get("type"))}' + (f' ({more})' if more else '')
    parameters = sum(p.numel() for p in encoder.backbone.parameters())
    lines = ['---', *([f'license: {str(facts["license"]).split()[0].lower()}'] if facts.get('license') else [])]
    lines += [
        f'library_name: {"timm" if target == "hf" else "mmkernel"}',
        'tags: [image-feature-extraction]',
        '---',
        '',
    ]
    lines += [f'# {facts.get("name") or options.get("model_name", "encoder")}', '']
    lines += ['An image encoder trained without labels, without its projector. Random parts: none.', '']
    rows = {
        'Backbone': f'{network}; {parameters / 1e6:.2f} M parameters',
        'Images': f'{channels}, {size}; short side to {pixels["resize"] or "its own size"}, middle '
        f'{pixels["crop"] or "not cropped"}, {pixels["interpolation"]}',
        'Pixels': f'(x / 255 - mean) / std, mean {numbers["mean"]}, std {numbers["std"]}',
        'Features': f'{encoder.out_dim} numbers an image',
    }
    for key in ('trained_on', 'epochs', 'license', 'source'):
        rows[key.replace('_', ' ').capitalize()] = facts.get(key) or 'not stated'
    lines += ['| | |', '|---|---|', *(f'| {key} | {value} |' for key, value in rows.items()), '']
    metrics = facts.get('metrics') or []
    lines += ['| task | data set | figure | source |', '|---|---|---|---|'] if metrics else ['Results: none given.']
    for result in metrics:
        figures = ', '.join(f'{key} {value}' for key, value in result['Metrics'].items())
        source = str(result['Source']).replace('run here', 'measured by us')  # as files of earlier versions say
        lines.append(f'| {result["Task"]} | {result["Dataset"]} | {figures} | {source} |')
    lines.append('')
    lines += ['## Use', '', USE.get(target, USE['safetensors']).replace('{file}', file), '']
    if facts.get('config'):
        lines += ['## Config', '', '```python', encoder.metadata()['config'].strip(), '```', '']
    return '\n'.join(lines)
