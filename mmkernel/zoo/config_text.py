"""A config as Python text that reads back as the same config."""

import math
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from mmengine.config import Config

WIDTH = 120


class OrderedConfig(Config):
    """mmengine's Config, but its text keeps the order of keys, because a dict of operations is applied in its order.

    mmengine sorts the keys, so its copy of a config in the work folder would train something else.
    """

    @property
    def pretty_text(self) -> str:
        return config_text(self.to_dict())


def ordered(cfg: Config) -> OrderedConfig:
    """The same config, with its keys written in their order."""
    return OrderedConfig(cfg._cfg_dict, cfg_text=cfg.text, filename=cfg.filename)


def config_text(values: Mapping[str, Any]) -> str:
    """Lines ``key = value``. inf and nan are written as calls of float, so that the text is valid Python."""
    return ''.join(f'{key} = {_text(value, len(key) + 3, 0)}\n' for key, value in values.items())


def _text(value: Any, used: float, indent: int) -> str:
    """``value`` on one line if it fits after ``used`` characters, else one item per line."""
    if isinstance(value, (Mapping, list, tuple)):
        names, items = [''] * len(value), value
        left, right = '()' if isinstance(value, tuple) else '[]'
        if isinstance(value, Mapping):
            words = all(isinstance(key, str) and key.isidentifier() and not iskeyword(key) for key in value)
            left, right = ('dict(', ')') if words else '{}'
            names, items = [f'{key}=' if words else f'{key!r}: ' for key in value], value.values()
        pairs = list(zip(names, items, strict=True))
        line = ', '.join(name + _text(item, -math.inf, 0) for name, item in pairs)
        line = f'{left}{line}{"," if isinstance(value, tuple) and len(value) == 1 else ""}{right}'
        if used + len(line) < WIDTH or not pairs:
            return line
        pad = ' ' * (indent + 4)
        lines = [f'\n{pad}{name}{_text(item, indent + 5 + len(name), indent + 4)},' for name, item in pairs]
        return f'{left}{"".join(lines)}\n{" " * indent}{right}'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    return repr(getattr(value, '__name__', str(value)))  # a class or a function: by the name that registries know
