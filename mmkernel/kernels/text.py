"""Kernels by name: those of the library in KERNELS, and kernels as people type them, ``RBFKernel scale=2`` or
``LegendreKernel(weights=(1, 40, 40)) + 0.5 * RBFKernel()``. ``import mmkernel.kernels`` leaves this out and needs torch alone."""

import ast
import inspect
import re
import shlex
from typing import Any

from mmkernel import kernels
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.radial import WIDTH_WORD, RadialKernel
from mmkernel.kernels.series import SeriesKernel
from mmkernel.registry import KERNELS

BASES = (Kernel, RadialKernel, SeriesKernel)  # to inherit from

for _class in vars(kernels).values():
    if isinstance(_class, type) and issubclass(_class, Kernel) and _class not in BASES:
        KERNELS.register_module(module=_class)

_EXAMPLES = (
    "Expected 'TYPE key=value ...', e.g. 'LegendreKernel weights=1,40,40', or an expression such as "
    "'LegendreKernel(weights=(1, 40, 40)) + 0.5 * RBFKernel(scale=2)'."
)


def kernel_from_text(text: str) -> Kernel:
    """The kernel that ``text`` describes. Types are those of KERNELS, one's own included once they are imported.

    Two forms: words (``TYPE key=value ...``; ``1,40,40`` is a tuple, ``0.5/q`` a multiple of the width), or an expression of
    calls, ``+`` and ``*``, of which nothing but constants and registered types is evaluated. ValueError for anything else;
    KeyError for an unknown type.
    """
    text = expression = text.strip()
    if re.fullmatch(r'\w+(\s+\w+=.*)?', text, re.S):
        name, *pairs = shlex.split(text)  # as an expression: 'weights=1,40,40' is weights=(1,40,40)
        expression = f'{name}({", ".join(pair.replace("=", "=(", 1) + ")" for pair in pairs)})'
    try:
        found = _value(ast.parse(expression, mode='eval').body, text)
    except (SyntaxError, _UnreadableError):
        found = None
    if not isinstance(found, Kernel):
        raise ValueError(f"'{text}' is not a kernel. {_EXAMPLES}")
    return found


class _UnreadableError(Exception):
    """Neither a kernel nor a constant."""


def _value(node: ast.expr, text: str) -> Any:
    """A kernel, a constant or a word for a multiple of the width."""
    if WIDTH_WORD.fullmatch(word := ast.unparse(node)):
        return word
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return _build(node.func.id, {k.arg: _value(k.value, text) for k in node.keywords if k.arg}, text)
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Mult)):
        left, right = _value(node.left, text), _value(node.right, text)
        return left + right if isinstance(node.op, ast.Add) else left * right
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item, text) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _UnreadableError from None


def _build(name: str, keywords: dict[str, Any], text: str) -> Kernel:
    factory = KERNELS.get(name)
    for parameter in inspect.signature(factory).parameters.values():
        given = keywords.get(parameter.name)
        if str(parameter.annotation).startswith('tuple') and isinstance(given, (int, float)):
            keywords[parameter.name] = (given,)
    try:
        return KERNELS.build(dict(type=name, **keywords))
    except (TypeError, ValueError) as error:
        takes = ', '.join(key for key in inspect.signature(factory).parameters)
        hint = f'. It takes: {takes}. {_EXAMPLES}' if 'required positional' in str(error) else ''
        raise ValueError(f"kernel '{text}': {error}{hint}") from None
