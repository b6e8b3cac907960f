"""Publish a checkpoint: a file of weights with its hash in its name, its row of a metafile and its model card."""

import os
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from mmkernel.checks import check_words
from mmkernel.evaluation import check_trained
from mmkernel.hashes import hashes
from mmkernel.writing import replacing, set_aside, temporary_name, writable
from mmkernel.zoo.encoder import Encoder
from mmkernel.zoo.export import compare, model_card
from mmkernel.zoo.files import meta_of, read_checkpoint, write_safetensors
from mmkernel.zoo.loading import load_file
from mmkernel.zoo.metafile import STAGES, read_metafile
from mmkernel.zoo.metafile_checks import MetafileError, yaml_of
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.shard_files import with_whole_weights
from mmkernel.zoo.tensor_names import weights_of


class Published(NamedTuple):
    """``entry``: the row of a metafile. ``difference``: largest between features, relative to the largest; 0 unless halved."""

    path: Path
    card: Path
    entry: dict[str, Any]
    difference: float


def publish_checkpoint(
    encoder: Encoder,
    checkpoint: str | Path,
    folder: str | Path,
    name: str,
    stage: str = 'backbone',
    half: bool = False,
    url: str | None = None,
    row: Mapping[str, Any] | None = None,
) -> Published:
    """Write ``folder/NAME-<8 hex digits of its sha256>.safetensors`` and a card beside it.

    The file has no optimizer and no random state. The header has config, preprocessing, metrics and licence.

    Args:
        encoder: loaded from ``checkpoint``, with its facts.
        stage: 'backbone', or 'model': all weights that training continues with.
        half: store matrices and filters in float16; vectors (batch statistics) keep their precision.
        url: the folder where the file will be hosted ('https://host/folder', 'package:weights').
        row: more keys of the metafile's row (In Collection, Config, Metadata).

    Errors: UntrainedError for weights that were never trained; CheckpointError for numbers that are not finite.
    """
    check_words(stage=(stage, STAGES))
    content = with_whole_weights(read_checkpoint(checkpoint), checkpoint)
    check_trained(encoder.backbone, meta_of(content), str(checkpoint))
    partial = temporary_name(writable(Path(folder) / name, None), '.safetensors')
    encoder.facts['name'] = name
    tensors = weights_of(content) if stage == 'model' else encoder.state_dict()
    tensors = {key: _halved(key, value) if half else value for key, value in tensors.items()}
    try:
        write_safetensors(tensors, partial, encoder.metadata())
        content = read_checkpoint(partial)  # features of the file alone, on the same images
        back = Encoder.from_header(content['meta'], str(partial))
        load_file(back.backbone, partial, prefix='backbone.', content=content)
        difference = compare(encoder, back)
        sha256 = hashes([partial])['sha256']
        path = Path(folder) / f'{name}-{sha256[:8]}.safetensors'
        size = partial.stat().st_size
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    card = path.with_suffix('.md')
    text = model_card(encoder, file=path.name)
    with replacing(card) as new:
        new.write_text(text, encoding='utf-8')
        if card.exists() and card.read_text(encoding='utf-8') != text:
            set_aside(card)  # another card of the same weights, perhaps with a person's words in it
    place = f'{url.rstrip("/")}/{path.name}' if url else None
    file = dict(Name=path.name, Stage=stage, URLs=[place], SHA256=sha256, Size=size, KeyMap='mmkernel')
    return Published(path, card, _entry(encoder.facts, file, place, row or {}), difference)


def _halved(key: str, value: Tensor) -> Tensor:
    if not value.is_floating_point() or value.ndim < 2:
        return value
    half = value.to(torch.float16)
    if not torch.isfinite(half).all():
        raise CheckpointError(f'{key} has numbers too large for half precision ({float(value.abs().max()):.3g}).')
    return half


def _entry(facts: Mapping[str, Any], file: dict[str, Any], place: str | None, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row, with keys in the order of the metafiles. Without ``place``, a URL, its status is 'not uploaded'."""
    entry = dict(Name=facts['name'], **row)
    if facts.get('metrics'):
        entry['Results'] = facts['metrics']
    if place:
        entry |= dict(Weights=place, Files=[file])
    entry['Source'] = facts.get('source') or 'trained with this package'
    entry['License'] = facts.get('license') or 'not stated'
    entry['Status'] = 'measured by us' if place else f'not uploaded: {file["Name"]}, sha256 {file["SHA256"]}'
    return entry


def row_text(entry: Mapping[str, Any]) -> str:
    """A row as YAML: one item of ``Models``."""
    return '  - ' + _lines(entry)[4:]


def _lines(entry: Mapping[str, Any]) -> str:
    return textwrap.indent(yaml.safe_dump(dict(entry), sort_keys=False, allow_unicode=True, width=1000), '    ')


def add_row(path: str | Path, entry: Mapping[str, Any]) -> None:
    """Add a row, or the missing keys of the row with this name; MetafileError if it has files already, or would be invalid.

    Text is inserted, so comments and order are kept. The new file must pass ``read_metafile`` before it replaces the old one.
    """
    path = Path(path)
    read_metafile(path)  # whatever is wrong with it is said by its place
    text = path.read_text(encoding='utf-8')
    item = next((row for row in yaml_of(path)['Models'] if row['Name'] == entry['Name']), None)
    if item is None:
        place = re.search(r'^Other Weights:', text, re.MULTILINE)
        start = place.start() if place else len(text)
        head = text[:start].rstrip('\n') + '\n'
        new = head + row_text(entry) + ('\n' + text[start:] if place else '')
    else:
        if item.get('Files'):
            raise MetafileError(f"{path}: '{entry['Name']}' has files already; remove them first.")
        more = {key: value for key, value in entry.items() if key not in item}
        block = re.search(rf'^  - Name: {re.escape(entry["Name"])}\n(?:    .*\n|\n(?=    ))*', text, re.MULTILINE)
        if block is None:
            raise MetafileError(f"{path}: no line '  - Name: {entry['Name']}'; add by hand:\n{row_text(more)}")
        new = text[: block.end()] + _lines(more) + text[block.end() :]
    with replacing(path) as partial:
        partial.write_text(new, encoding='utf-8')
        read_metafile(partial)
