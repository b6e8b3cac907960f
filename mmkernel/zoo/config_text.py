"""A config as Python text that reads back as the same config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from mmengine.config import Config

WIDTH = 120


class OrderedConfig(Config):
    """mmengine's Config, whose text keeps the order of keys: a dict of operations is applied in its order.

    (mmengine sorts them, so that its copy of a config in the work folder would train something else.)
    """

    @property
    def pretty_text(self) -> str:
        return config_text(self.to_dict())


def ordered(cfg: Config) -> OrderedConfig:
    """The same config with text in order."""
    if isinstance(cfg, OrderedConfig):
        return cfg
    return OrderedConfig(cfg._cfg_dict, cfg_text=cfg.text, filename=cfg.filename)


def config_text(values: Mapping[str, Any]) -> str:
    """``key = value`` lines; inf and nan are written as calls, so that the text can be run."""
    return ''.join(f'{key} = {_multiline(value, len(key) + 3, 0)}\n' for key, value in values.items())


def _multiline(value: Any, used: int, indent: int) -> str:
    """``value`` on one line if it fits after ``used`` characters, else one item per line."""
    line = _line(value)
    if used + len(line) < WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return line
    pad = ' ' * (indent + 4)
    if not isinstance(value, Mapping):
        left, right = '[]' if isinstance(value, list) else '()'
        items = [_multiline(item, indent + 5, indent + 4) for item in value]
    else:
        left, right = ('dict(', ')') if _identifiers(value) else ('{', '}')
        items = []
        for key, item in value.items():
            name = f'{key}=' if _identifiers(value) else f'{key!r}: '
            items.append(name + _multiline(item, indent + 5 + len(name), indent + 4))
    return left + ''.join(f'\n{pad}{item},' for item in items) + f'\n{" " * indent}{right}'


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        if _identifiers(value):
            return f'dict({", ".join(f"{key}={_line(item)}" for key, item in value.items())})'
        return f'{{{", ".join(f"{key!r}: {_line(item)}" for key, item in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_line, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_line, value))}{"," if len(value) == 1 else ""})'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return repr(getattr(value, '__name__', str(value)))  # a class or a function: by the name that registries know


def _identifiers(value: Mapping) -> bool:
    return all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value)
