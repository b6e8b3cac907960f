"""``--cfg-options KEY=VALUE ...``: values as Python writes them, and OpenMMLab's shorter forms."""

from __future__ import annotations

import argparse
import ast
from typing import Any

import torch
from mmengine.config import DictAction


class OptionsAction(argparse.Action):
    """{'a.b': 1, 'c': {'type': 'X'}} from ``a.b=1 "c={'type': 'X'}"``.

    mmengine's own action knows no dicts, and takes blanks out of strings: a folder name would not survive it.
    """

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, _: Any = None
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in values:
            key, equals, value = pair.partition('=')
            if not equals or not key:
                parser.error(f"--cfg-options takes KEY=VALUE, got '{pair}'. Quote values that hold blanks.")
            options[key] = option_value(value)
        setattr(namespace, self.dest, options)


def option_value(text: str) -> Any:
    """'1e-3' -> 0.001, '(1,2)' -> (1, 2), "{'a': 1}" -> dict, 'true' -> True, '[a,b]' -> ['a', 'b'], else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        if text[:1] == '{':
            raise argparse.ArgumentTypeError(f'--cfg-options: {text} is not a dict that Python can read.') from None
        return DictAction._parse_iterable(text) if text[:1] in '([' or text.lower() in ('true', 'false') else text


def usable_device(text: str) -> str:
    """``text`` itself, the name of a device that works here: the ``type`` of an argument."""
    try:
        torch.empty(1, device=text)
    except (RuntimeError, AssertionError):
        there = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
        raise argparse.ArgumentTypeError(f"'{text}' cannot be used here; there is {', '.join(there)}") from None
    return text
