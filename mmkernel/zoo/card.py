"""The page that goes with published weights: what they are, how to use them, and what is not known about them."""

from __future__ import annotations

from mmkernel.zoo.encoder import Encoder

USE = {
    'hf': """```python
import timm
model = timm.create_model('local-dir:.', pretrained=True)  # the folder with this page
```""",
    'safetensors': """```python
from mmkernel.zoo import get_features, load_encoder
features = get_features(load_encoder('{file}'), ['image.png'])
```""",
}


def model_card(encoder: Encoder, target: str = 'safetensors', file: str = 'model.safetensors') -> str:
    """Markdown with the header that the Hugging Face hub reads; facts that are not given are said to be unknown."""
    facts, pixels, options = encoder.facts, encoder.pixels, encoder.options
    name = facts.get('name') or options.get('model_name', 'encoder')
    size = ' x '.join(map(str, pixels['size']))
    parameters = sum(p.numel() for p in encoder.backbone.parameters())
    lines = ['---']
    if facts.get('license'):
        lines.append(f'license: {str(facts["license"]).split()[0].lower()}')
    lines += [
        f'library_name: {"timm" if target == "hf" else "mmkernel"}',
        'tags: [image-feature-extraction]',
        '---',
        '',
    ]
    lines += [f'# {name}', '']
    lines += ['An image encoder trained without labels, without its projector. Random parts: none.', '']
    rows = {
        'Backbone': f'{_text(options)}; {parameters / 1e6:.2f} M parameters',
        'Images': f'{_channels(encoder.channels)}, {size}; short side to {pixels["resize"] or "its own size"}, middle '
        f'{pixels["crop"] or "not cropped"}, {pixels["interpolation"]}',
        'Pixels': f'(x / 255 - mean) / std, mean {_numbers(pixels["mean"])}, std {_numbers(pixels["std"])}',
        'Features': f'{encoder.out_dim} numbers an image',
        'Trained on': facts.get('trained_on') or 'not stated',
        'Epochs': facts.get('epochs') or 'not stated',
        'License': facts.get('license') or 'not stated',
        'Source': facts.get('source') or 'not stated',
    }
    lines += ['| | |', '|---|---|', *(f'| {key} | {value} |' for key, value in rows.items()), '']
    lines += _results(facts.get('metrics') or [])
    lines += ['## Use', '', USE.get(target, USE['safetensors']).replace('{file}', file), '']
    if facts.get('config'):
        lines += ['## Config', '', '```python', encoder.metadata()['config'].strip(), '```', '']
    return '\n'.join(lines)


def _results(metrics: list[dict]) -> list[str]:
    """One line per figure; no table at all is better than an empty one."""
    if not metrics:
        return ['Results: none given.', '']
    lines = ['| task | data set | figure | source |', '|---|---|---|---|']
    for result in metrics:
        figures = ', '.join(f'{key} {value}' for key, value in result['Metrics'].items())
        lines.append(f'| {result["Task"]} | {result["Dataset"]} | {figures} | {result["Source"]} |')
    return [*lines, '']


def _text(options: dict) -> str:
    more = ', '.join(f'{key}={value}' for key, value in options.items() if key not in ('type', 'model_name'))
    return f'{options.get("model_name", options.get("type"))}' + (f' ({more})' if more else '')


def _numbers(values: tuple[float, ...]) -> str:
    return ', '.join(f'{value:g}' for value in values)


def _channels(count: int) -> str:
    return '1 channel' if count == 1 else f'{count} channels'
