"""Configs inside files of weights: values only. A config file is Python and is run; a text that came with a download is not.

What is used is what was checked: the values, never the text that they came from.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

from mmkernel.zoo.files import meta_of

MOST_TEXT, MOST_DEPTH = 1 << 20, 64  # of a text inside a file; ours have some kB and a dozen levels
SUBSTITUTION = re.compile(
    r'\{\{.*?\}\}', re.DOTALL
)  # of mmengine: {{fileDirname}}, {{$VARIABLE:default}}, {{_base_.x}}
SCOPES = ('mmkernel', 'mmengine')
# Keys that tell where a run was, and nothing about what was trained.
OF_ONE_MACHINE = ('work_dir', 'load_from', 'resume', 'launcher', 'log_file', 'custom_imports', 'import_folders')
# Keys by which loaders of configs bring in other files and modules.
FOLLOWED = ('_base_', 'custom_imports', 'custom_import', 'imports', 'import_folders', 'import_folder')
# Options that would fetch or read weights from another place than the file.
ELSEWHERE = ('pretrained', 'checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir', 'init_cfg')
TRUST = 'If you trust it, name its config: --config FILE (cfg= in Python).'


class ConfigTextError(ValueError):
    """A config inside a file that is more than values, or that would bring in what is not in the file."""


def config_inside(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The config in the ``meta`` of a checkpoint, to be built from: checked values, never their text. None if it has none.

    Options of the model that name other weights are left out, as every tensor comes from the file. ConfigTextError: see
    ``plain_config``; or if it describes no model.
    """
    text = meta_of(checkpoint).get('config')
    if text is None or text == '':
        return None
    values = plain_config(text, source)
    model = values.get('model')
    if not (isinstance(model, dict) and isinstance(model.get('type'), str)):
        raise ConfigTextError(
            f"the config inside '{source}' describes no model: expected model=dict(type=..., ...), got {str(model)[:60]!r}. {TRUST}"
        )
    values['model'] = without_weights(model)
    return {key: value for key, value in values.items() if key not in OF_ONE_MACHINE}


def plain_config(text: Any, source: str) -> dict[str, Any]:
    """The values of a config from inside a file. ConfigTextError: see ``config_values`` and ``refuse_foreign``."""
    values = config_values(text, source)
    refuse_foreign(values, source)
    return values


def config_values(text: Any, source: str) -> dict[str, Any]:
    """``key = value`` lines of numbers, texts, lists, dicts, dict(...) and float('inf').

    ConfigTextError for anything else; for a key that stands twice; for more than 1 MB or 64 levels; for a substitution
    ({{...}}, in comments too).
    """
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        given = f'of {len(text)} characters' if isinstance(text, str) else f'of type {type(text).__name__}'
        raise ConfigTextError(
            f"the config inside '{source}' is {given}; expected a text of at most {MOST_TEXT}. {TRUST}"
        )
    if found := SUBSTITUTION.search(text):
        raise ConfigTextError(_substitution(source, 'its text', found[0]))
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        raise ConfigTextError(f"the config inside '{source}' cannot be read: {reason}. {TRUST}") from error
    values: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        try:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                raise _NotPlain(node, 'more than values')
            if node.targets[0].id in values:
                raise _NotPlain(node, 'ambiguous: a key stands twice')
            values[node.targets[0].id] = _value(node.value)
        except _NotPlain as error:
            node, problem = error.args
            part = (ast.get_source_segment(text, node) or '?').splitlines()[0][:60]
            raise ConfigTextError(
                f"the config inside '{source}' is {problem} (line {node.lineno}: {part!r}); it is not run. {TRUST}"
            ) from None
    return values


def plain_json(text: Any, source: str) -> dict[str, Any]:
    """The same for a dict that is written as JSON."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(pairs)) < len(pairs):
            raise ValueError(f'a key stands twice among {", ".join(key for key, _ in pairs)}')
        return dict(pairs)

    try:
        values = json.loads(text, object_pairs_hook=once)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigTextError(f"the JSON inside '{source}' cannot be read: {error}. {TRUST}") from error
    if not isinstance(values, dict):
        raise ConfigTextError(f"the JSON inside '{source}' is a {type(values).__name__}; expected a dict. {TRUST}")
    refuse_foreign(values, source)
    return values


def refuse_foreign(value: Any, source: str, where: str = '', depth: int = 0) -> None:
    """ConfigTextError for what would bring in something from elsewhere: the key and its place are named.

    These are ``_base_``, ``custom_imports`` and import folders (at any depth), a scope that is not ours, substitutions, and
    ``type='module.function'``, which registries would import and call, whatever it does.
    """
    if depth > MOST_DEPTH:
        raise ConfigTextError(f"'{source}' nests values more than {MOST_DEPTH} levels deep ({where[:60]}...). {TRUST}")
    if isinstance(value, str) and (found := SUBSTITUTION.search(value)):
        raise ConfigTextError(_substitution(source, where, found[0]))
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        here = f'{where}.{key}'.lstrip('.')
        if re.sub('[^a-z_]', '', str(key).lower()) in FOLLOWED and item:
            raise ConfigTextError(
                f"'{source}' has '{key}' ({here}): what is inside a file follows no other file and imports nothing. {TRUST}"
            )
        if key in ('_scope_', 'default_scope') and item not in (None, *SCOPES):
            raise ConfigTextError(f"'{source}' has {here}={item!r}; expected one of {', '.join(SCOPES)}. {TRUST}")
        if key == 'type' and item is not None and not (isinstance(item, str) and item.isidentifier()):
            raise ConfigTextError(
                f"'{source}' asks for type={item!r} ({here}). Files name registered classes only, as a function of any module "
                f'could be called this way. {TRUST}'
            )
        refuse_foreign(str(key), source, here, depth + 1)
        refuse_foreign(item, source, here, depth + 1)


def without_weights(options: Any) -> Any:
    """The same options, at every depth, without those that would fetch or read weights from another place than the file."""
    if isinstance(options, Mapping):
        return {key: without_weights(value) for key, value in options.items() if key not in ELSEWHERE}
    if isinstance(options, (list, tuple)):
        return type(options)(without_weights(value) for value in options)
    return options


class _NotPlain(Exception):
    """(node, what the config is)."""


def _value(node: ast.expr, depth: int = 0) -> Any:
    if depth > MOST_DEPTH:
        raise _NotPlain(node, f'more than {MOST_DEPTH} levels deep')
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, NoneType)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = getattr(node.operand, 'value', None)
        if isinstance(number, (int, float)):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item, depth + 1) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return _dict(node, [_value(key, depth + 1) for key in node.keys], node.values, depth)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == 'dict' and not node.args and all(word.arg for word in node.keywords):
            return _dict(node, [word.arg for word in node.keywords], [word.value for word in node.keywords], depth)
        words = [getattr(word, 'value', None) for word in node.args]
        if node.func.id == 'float' and words in (['inf'], ['-inf'], ['nan']) and not node.keywords:
            return float(words[0])
    raise _NotPlain(node, 'more than values')


def _dict(node: ast.expr, keys: list[Any], values: list[ast.expr], depth: int) -> dict[Any, Any]:
    if any(isinstance(key, (list, dict, tuple)) for key in keys):
        raise _NotPlain(node, 'more than values: a key is a text or a number')
    if len(set(keys)) < len(keys):
        raise _NotPlain(node, 'ambiguous: a key stands twice')
    return dict(zip(keys, (_value(value, depth + 1) for value in values), strict=True))


def _substitution(source: str, where: str, found: str) -> str:
    return f"'{source}' has a substitution in its config ({where}: {found[:60]!r}); none is made. {TRUST}"
