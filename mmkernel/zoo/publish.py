"""A checkpoint of a run -> a file to be published, with its hash in its name, its row of a metafile and its card."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkernel.evaluation import check_trained
from mmkernel.evaluation.report import set_aside
from mmkernel.hashes import hashes
from mmkernel.zoo.card import model_card
from mmkernel.zoo.export import compare
from mmkernel.zoo.files import meta_of, read_checkpoint, write_safetensors
from mmkernel.zoo.loading import weights_of
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.portable import Portable, of_metadata
from mmkernel.zoo.recognise import load_content

HOLDS = ('backbone', 'model')


class Published(NamedTuple):
    """``entry``: the row of a metafile. ``difference``: largest, of features, as a fraction of the largest: 0 unless halved."""

    path: Path
    card: Path
    entry: dict[str, Any]
    difference: float


def publish_checkpoint(
    encoder: Portable,
    checkpoint: str | Path,
    folder: str | Path,
    name: str,
    holds: str = 'backbone',
    half: bool = False,
    url: str | None = None,
    row: Mapping[str, Any] | None = None,
) -> Published:
    """Write ``folder/NAME-<8 hex digits of its sha256>.safetensors`` and a card beside it.

    No optimizer, no random state; config, preprocessing, metrics and licence stand in the header.

    Args:
        encoder: loaded from ``checkpoint``, with its facts.
        holds: 'backbone', or 'model': every part that training goes on with.
        half: matrices and filters in float16; vectors (batch statistics) stay as they are.
        url: where the file will lie, without its name ('https://host/folder', 'package:weights').
        row: more keys of the metafile's row (In Collection, Config, Metadata).

    Errors: UntrainedError for weights that no step has changed; CheckpointError for numbers that are not finite.
    """
    if holds not in HOLDS:
        raise ValueError(f'holds is one of {", ".join(HOLDS)}, got {holds!r}.')
    content = read_checkpoint(checkpoint)
    check_trained(encoder.backbone, meta_of(content), str(checkpoint))
    encoder.facts['name'] = name
    if holds == 'model':
        tensors = weights_of(content)
    else:
        tensors = {f'backbone.{key}': value for key, value in encoder.backbone.state_dict().items()}
    tensors = {key: _halved(key, value) if half else value for key, value in tensors.items()}
    partial = Path(folder) / f'.{name}.partial.safetensors'
    try:
        write_safetensors(tensors, partial, encoder.metadata())
        difference = _read_back(encoder, partial)
        sha256 = hashes([partial])['sha256']
        path = Path(folder) / f'{name}-{sha256[:8]}.safetensors'
        size = partial.stat().st_size
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    card = path.with_suffix('.md')
    text = model_card(encoder, file=path.name)
    if card.exists() and card.read_text(encoding='utf-8') != text:
        set_aside(card)  # another card of the same weights, perhaps with a person's words in it
    card.write_text(text, encoding='utf-8')
    file = dict(Name=path.name, Holds=holds, SHA256=sha256, Size=size, KeyMap='mmkernel')
    return Published(path, card, _entry(encoder, file, url, row or {}), difference)


def _halved(key: str, value: Tensor) -> Tensor:
    if not value.is_floating_point() or value.ndim < 2:
        return value
    half = value.to(torch.float16)
    if not torch.isfinite(half).all():
        raise CheckpointError(f'{key} has numbers too large for half precision ({float(value.abs().max()):.3g}).')
    return half


def _read_back(encoder: Portable, path: Path) -> float:
    """What the file alone gives, on the same images."""
    content = read_checkpoint(path)
    back = of_metadata(content['meta'], str(path))
    tensors = {key: value for key, value in content['state_dict'].items() if key.startswith('backbone.')}
    load_content(back.backbone, tensors, str(path))
    return compare(encoder, back.backbone, normalised=True)


def _entry(encoder: Portable, file: dict[str, Any], url: str | None, row: Mapping[str, Any]) -> dict[str, Any]:
    """Keys in the order of the metafiles. Without ``url`` there is nothing to fetch yet, and the row says so."""
    facts = encoder.facts
    place = f'{url.rstrip("/")}/{file["Name"]}' if url else None
    entry = dict(Name=facts['name'], **row)
    if facts.get('metrics'):
        entry['Results'] = facts['metrics']
    if place:
        entry['Weights'] = place
        known = {key: file[key] for key in ('SHA256', 'Size', 'KeyMap')}
        entry['Files'] = [dict(Name=file['Name'], Holds=file['Holds'], URLs=[place], **known)]
    entry['Source'] = facts.get('source') or 'trained with this package'
    entry['License'] = facts.get('license') or 'not stated'
    entry['Status'] = 'run here' if place else f'not uploaded: {file["Name"]}, sha256 {file["SHA256"]}'
    return entry
