"""Names of tensors in published files -> names in our models, by rules that are data (configs/_base_/key_maps.yml)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mmkernel.zoo.metafile import MetafileError
from mmkernel.zoo.places import root


class KeyMapError(RuntimeError):
    """A file whose names are not those of the layout that it is said to have."""


@dataclass(frozen=True)
class KeyMap:
    """``inside``: the first of these keys that a file has is opened. ``rules``: (pattern, replacement or None to drop)."""

    name: str
    inside: tuple[str, ...]
    rules: tuple[tuple[str, str | None], ...]

    def open(self, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state dict in the content of a file."""
        return next((content[key] for key in self.inside if isinstance(content.get(key), Mapping)), content)

    def rename(self, key: str) -> str | None:
        """Our name of ``key``, None for what is left out; KeyMapError if no rule knows it."""
        for pattern, replacement in self.rules:
            match = re.match(pattern, key)
            if match:
                return None if replacement is None else match.expand(replacement) + key[match.end() :]
        raise KeyMapError(key)

    def apply(self, content: Mapping[str, Any], source: str = 'the file') -> dict[str, Any]:
        """The state dict of a file under our names; KeyMapError for a name that no rule knows, or that two become one."""
        state, unknown = {}, []
        for key, value in self.open(content).items():
            try:
                name = self.rename(str(key))
            except KeyMapError:
                unknown.append(str(key))
                continue
            if name in state:
                raise KeyMapError(f"{source}: the layout '{self.name}' gives two tensors the name '{name}'.")
            if name is not None:
                state[name] = value
        if unknown or not state:
            more = f', ... ({len(unknown) - 6} more)' if len(unknown) > 6 else ''
            raise KeyMapError(
                f"{source} is not of the layout '{self.name}': "
                + (f'no rule for {", ".join(unknown[:6])}{more}.' if unknown else 'it holds no tensor of the model.')
                + f' Rules: {", ".join(pattern for pattern, _ in self.rules)} (configs/_base_/key_maps.yml).'
            )
        return state


@cache
def key_maps(folder: Path | None = None) -> dict[str, KeyMap]:
    """All layouts by name."""
    path = (folder or root()) / 'configs/_base_/key_maps.yml'
    return {
        name: _key_map(name, item, path)
        for name, item in yaml.safe_load(path.read_text(encoding='utf-8')).items()
    }  # fmt: skip


def _key_map(name: str, item: Any, path: Path) -> KeyMap:
    try:
        rules = tuple((str(pattern), replacement) for pattern, replacement in item['Rules'])
        for pattern, _ in rules:
            re.compile(pattern)
        return KeyMap(name, _names(item['Inside']), rules)
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise MetafileError(
            f"{path}: '{name}' needs Inside: [keys] and Rules: [[pattern, replacement], ...]: {error!r}."
        ) from error


def _names(inside: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(key) for key in inside)
