"""Configs inside files of weights: values only. A config file is Python and is run; a text that came with a download is not."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any


class ConfigTextError(ValueError):
    """A config inside a file that is more than values, or names what no registry has."""


def plain_config(text: str, source: str) -> dict[str, Any]:
    """``key = value`` lines of numbers, texts, lists, dicts, dict(...) and float('inf'); ConfigTextError for anything else."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError) as error:
        raise ConfigTextError(f"the config inside '{source}' cannot be read: {error}.") from error
    found = {}
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise ConfigTextError(_refusal(source, node))
        found[node.targets[0].id] = _value(node.value, source)
    check_types(found, source)
    return found


def check_types(values: Any, source: str) -> None:
    """ConfigTextError for ``type='module.function'``: registries would import it and call it, whatever it does."""
    if isinstance(values, Mapping):
        name = values.get('type')
        if name is not None and not str(name).isidentifier():
            raise ConfigTextError(
                f"'{source}' asks for type={name!r}. Files name registered classes only, as a function of any module could "
                'be called this way. If you trust it, name its config with --config.'
            )
    if isinstance(values, (Mapping, list, tuple)):
        for value in values.values() if isinstance(values, Mapping) else values:
            check_types(value, source)


def _value(node: ast.expr, source: str) -> Any:
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_value(k, source): _value(v, source) for k, v in zip(node.keys, node.values, strict=True)}
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item, source) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == 'dict' and not node.args and all(keyword.arg for keyword in node.keywords):
            return {keyword.arg: _value(keyword.value, source) for keyword in node.keywords}
        if node.func.id == 'float' and len(node.args) == 1 and not node.keywords:
            return float(_value(node.args[0], source))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ConfigTextError(_refusal(source, node)) from None


def _refusal(source: str, node: ast.AST) -> str:
    return (
        f"the config inside '{source}' is more than values (line {node.lineno}: {ast.unparse(node)[:60]}); it is not run. If you "
        'trust it, name its config with --config.'
    )
