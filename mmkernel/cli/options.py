"""Options that several commands have. Each word means the same everywhere:

--config        a config file, where the one inside the checkpoint is not wanted
--cfg-options   KEY=VALUE ..., keys of the config to change; new hooks and operations are added by their key
--device        cpu, cuda, cuda:1, mps, or auto: a GPU where there is one
--seed          of everything that is drawn
--out           what is written: a file, or a folder where a command writes several
--json          the result as one JSON document on stdout; words for people go to stderr
"""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from mmengine.config import DictAction

from mmkernel.cli.terminal import Parameter


def options_of(pairs: Sequence[str] | None, word: str = '--cfg-options') -> dict[str, Any]:
    """{'a.b': 1, 'c': {'type': 'X'}} from ``a.b=1 "c={'type': 'X'}"``; ValueError where two say different things.

    mmengine's own action takes no dicts, and removes blanks from strings, also from names of folders.
    """
    options: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition('=')
        if not equals or not key:
            raise ValueError(f"{word} takes KEY=VALUE, got '{pair}'. Quote values that hold blanks.")
        try:
            said, new = _leaves(options), {key: option_value(value)}
        except ValueError as error:
            raise ValueError(f'{word} {key}: {error}') from None
        for place, leaf in _leaves(new).items():
            if said.get(place, leaf) != leaf:
                raise ValueError(
                    f'Two options say different things of {place}: {said[place]!r} and {leaf!r}. Leave one out.'
                )
        options |= new
    return options


Pairs = Annotated[list[str], Parameter(consume_multiple=True, metavar='KEY=VALUE ...')]
"""Of ``options_of``, which the command calls."""

Options = Annotated[Pairs | None, Parameter(help='change keys of the config')]
ConfigFile = Annotated[str | None, Parameter(help='a config file, which is run; default: what the checkpoint holds')]
Device = Annotated[str, Parameter(help='cpu, cuda, cuda:1, mps; auto: a GPU where there is one')]
Seed = Annotated[int, Parameter(help='of everything that is drawn')]
Out = Annotated[Path | None, Parameter(metavar='PATH')]
Json = Annotated[bool, Parameter(negative=(), show_default=False, help='print the result as JSON')]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


def _leaves(options: dict, below: str = '') -> dict[str, Any]:
    """{'a.b': 1} of {'a': {'b': 1}} and of {'a.b': 1}."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        found |= _leaves(value, f'{below}{key}.') if isinstance(value, dict) and value else {f'{below}{key}': value}
    return found


class _Dicts(ast.NodeTransformer):
    """dict(a=1) -> {'a': 1}."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.func) != 'dict' or node.args or any(k.arg is None for k in node.keywords):
            raise ValueError('only dict(key=value) is called in an option')
        return ast.Dict([ast.Constant(k.arg) for k in node.keywords], [k.value for k in node.keywords])


def option_value(text: str) -> Any:
    """'1e-3' -> 0.001, '(1,2)' -> (1, 2), "{'a': 1}", 'dict(a=1)' -> dict, 'true' -> True, '[a,b]' -> [...], else the text."""
    try:
        return ast.literal_eval(_Dicts().visit(ast.parse(text, mode='eval')))
    except (ValueError, SyntaxError) as error:
        said = (
            f'{error.msg}, column {error.offset}' if isinstance(error, SyntaxError) else str(error).split(' on line')[0]
        )
        if text[:1] == '{' or text[:5] == 'dict(':
            raise ValueError(f'{text} is not a dict that Python can read ({said}).') from None
        if any(text.count(left) != text.count(right) for left, right in ('()', '[]')) and text[:1] in ('(', '['):
            raise ValueError(f'{text} is not a list that Python can read ({said}).') from None
        return DictAction._parse_iterable(text) if text[:1] in ('(', '[') or text.lower() in ('true', 'false') else text


def usable_device(text: str = 'auto') -> str:
    """The name of a device that works here (cpu, cuda, cuda:1): ``text`` itself, or for 'auto' cuda where there is a GPU.

    GPUs are counted, not used: each process gets its own later (``init_processes``). A CUDA context made before would stay on
    GPU 0, some hundred MB for each process.
    """
    there = ['cpu', *(f'cuda:{i}' for i in range(torch.cuda.device_count()))]
    there += ['mps'] if torch.backends.mps.is_available() else []
    if text == 'auto':
        return 'cuda' if 'cuda:0' in there else 'cpu'
    if text not in there and not (text == 'cuda' and 'cuda:0' in there):
        raise ValueError(f"device '{text}' cannot be used here; there is {', '.join(there)}")
    return text
