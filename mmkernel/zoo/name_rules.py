"""Names of tensors in the files of other libraries -> ours: the rules of configs/_base_/key_maps.yml."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from mmkernel.zoo.catalogue import root
from mmkernel.zoo.metafile import MetafileError


class KeyMapError(RuntimeError):
    """A file whose tensor names do not belong to the given layout."""


@dataclass(frozen=True)
class KeyMap:
    """``inside``: the first of these keys that a file has is opened. ``rules``: (pattern, replacement or None to drop)."""

    name: str
    inside: tuple[str, ...]
    rules: tuple[tuple[str, str | None], ...]

    def apply(self, content: Mapping[str, Any], source: str = 'the file') -> dict[str, Any]:
        """The state dict of a file under our names; KeyMapError for a name that no rule knows, or that two become one."""
        given = next((content[key] for key in self.inside if isinstance(content.get(key), Mapping)), content)
        state, unknown = {}, []
        for key, value in ((str(key), value) for key, value in given.items()):
            name = self._renamed(key, drop=True)
            if name is None:
                unknown.append(key)
            elif name in state:
                raise KeyMapError(f"{source}: the layout '{self.name}' gives two tensors the name '{name}'.")
            elif name:
                state[name] = value
        if unknown or not state:
            more = f', ... ({len(unknown) - 6} more)' if len(unknown) > 6 else ''
            problem = f'no rule for {", ".join(unknown[:6])}{more}' if unknown else 'it holds no tensor of the model'
            raise KeyMapError(f"{source} is not of the layout '{self.name}': {problem} (configs/_base_/key_maps.yml).")
        return joined(state)

    def rename(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """The same tensors, none of them dropped; those that no rule knows, or two of which become one, keep their names."""
        new = {key: self._renamed(key, drop=False) or key for key in state}
        times = Counter(new.values())
        return joined({new[key] if times[new[key]] == 1 else key: value for key, value in state.items()})

    def _renamed(self, key: str, drop: bool) -> str | None:
        """The new name; '' where it is dropped, None where no rule knows it."""
        for pattern, replacement in self.rules:
            if (replacement is not None or drop) and (match := re.match(pattern, key)):
                if replacement is None:
                    return ''
                new = re.sub(r'\{(\d+)([+-]\d+)\}', lambda m: str(int(m[1]) + int(m[2])), match.expand(replacement))
                return new + key[match.end() :]
        return None


@cache
def key_maps(folder: Path | None = None) -> dict[str, KeyMap]:
    """All key maps by name of the layout; MetafileError for an invalid entry."""
    path = (folder or root()) / 'configs/_base_/key_maps.yml'
    found = {}
    for name, item in yaml.safe_load(path.read_text(encoding='utf-8')).items():
        try:
            rules = tuple((re.compile(str(pattern)).pattern, replacement) for pattern, replacement in item['Rules'])
            found[name] = KeyMap(name, tuple(map(str, item['Inside'])), rules)
        except (KeyError, TypeError, ValueError, re.error) as error:
            expected = 'Inside: [keys] and Rules: [[pattern, replacement], ...]'
            raise MetafileError(f"{path}: '{name}' needs {expected}: {error!r}.") from error
    return found


def joined(state: dict[str, Any]) -> dict[str, Any]:
    """The same tensors; ``query``, ``key`` and ``value`` of an attention are one: ``qkv``."""
    for first in [key for key in state if '.attn.query.' in key]:
        parts = [first.replace('.query.', f'.{word}.') for word in ('query', 'key', 'value')]
        if all(isinstance(state.get(part), Tensor) for part in parts):
            state[first.replace('.query.', '.qkv.')] = torch.cat([state.pop(part) for part in parts])
    return state


def numbered(state: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """The same tensors; where the first words below a prefix are positions, as many as ``names``, they have become these.

    ``nn.Sequential(*network.children())`` names its parts so. A linear layer behind the last is called ``fc``.
    """
    below: dict[str, dict[int, int]] = {}  # prefix -> position -> axes of its largest tensor
    for key, value in state.items():
        if match := re.match(r'((?:.*?\.)??)(\d+)\.', key):
            axes = below.setdefault(match[1], {})
            axes[int(match[2])] = max(axes.get(int(match[2]), 0), getattr(value, 'ndim', 0))
    new: dict[str, str] = {}
    for prefix, axes in below.items():
        order = sorted(axes)
        if len(order) in (len(names), len(names) + 1) and all(axes[k] == 2 for k in order[len(names) :]):
            new |= {f'{prefix}{k}.': f'{prefix}{name}.' for k, name in zip(order, [*names, 'fc'], strict=False)}
    found = {}
    for key, value in state.items():
        match = re.match(r'(?:.*?\.)??\d+\.', key)
        old = match[0] if match else ''
        found[new.get(old, old) + key[len(old) :]] = value
    return found
