"""Rows put into a metafile without touching what others wrote there."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mmkernel.zoo.metafile import MetafileError, read_metafile


def row_text(entry: Mapping[str, Any]) -> str:
    """One item of ``Models``."""
    lines = yaml.safe_dump(dict(entry), sort_keys=False, allow_unicode=True, width=1000).splitlines()
    return ''.join(f'  {"- " if i == 0 else "  "}{line}\n' for i, line in enumerate(lines))


def add_row(path: str | Path, entry: Mapping[str, Any]) -> None:
    """Add a row, or the keys that the row of this name lacks; MetafileError if it has files already, or would be invalid.

    Text is inserted, so comments and order stay; the file is replaced only by one that ``read_metafile`` accepts.
    """
    path = Path(path)
    text = path.read_text(encoding='utf-8')
    item = next((row for row in yaml.safe_load(text)['Models'] if row['Name'] == entry['Name']), None)
    if item is None:
        place = re.search(r'^Other Weights:', text, re.MULTILINE)
        start = place.start() if place else len(text)
        head = text[:start].rstrip('\n') + '\n'
        new = head + row_text(entry) + ('\n' + text[start:] if place else '')
    else:
        if item.get('Files'):
            raise MetafileError(f"{path}: '{entry['Name']}' has files already; remove them first.")
        more = {key: value for key, value in entry.items() if key not in item}
        lines = yaml.safe_dump(more, sort_keys=False, allow_unicode=True, width=1000).splitlines()
        block = re.search(rf'^  - Name: {re.escape(entry["Name"])}\n(?:    .*\n|\n(?=    ))*', text, re.MULTILINE)
        if block is None:
            raise MetafileError(f"{path}: no line '  - Name: {entry['Name']}'; add by hand:\n{row_text(more)}")
        new = text[: block.end()] + ''.join(f'    {line}\n' for line in lines) + text[block.end() :]
    partial = path.with_name(f'.{path.name}.tmp')
    try:
        partial.write_text(new, encoding='utf-8')
        read_metafile(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
