"""Read a config from inside a file of weights as plain values; nothing in it is run.

A config file is Python and is run; a text that came with a download is not. Only the checked values are used, never the text.
"""

import ast
import json
import re
from collections.abc import Mapping
from types import NoneType
from typing import Any

from mmkernel.zoo.files import meta_of
from mmkernel.zoo.network_options import of_this_file

MOST_TEXT, MOST_DEPTH = 1 << 20, 64  # of a text inside a file; ours have some kB and a dozen levels
SUBSTITUTION = re.compile(r'\{\{.*?\}\}', re.DOTALL)  # {{fileDirname}}, {{$VARIABLE:default}}, {{_base_.x}} of mmengine
SCOPES = ('mmkernel', 'mmengine')
OF_ONE_MACHINE = ('work_dir', 'load_from', 'resume', 'launcher', 'log_file', 'custom_imports', 'import_folders')
# Keys that make loaders of configs read other files and import modules.
FOLLOWED = ('_base_', 'custom_imports', 'custom_import', 'imports', 'import_folders', 'import_folder')
TRUST = 'If you trust it, name its config: --config FILE (cfg= in Python).'


class ConfigTextError(ValueError):
    """A config inside a file that contains more than values, or that refers to something outside the file."""


def _refused(source: str, problem: str) -> ConfigTextError:
    return ConfigTextError(f"the config inside '{source}' {problem}. {TRUST}")


def config_inside(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any] | None:
    """The checked values of the config in the ``meta`` of a checkpoint, from which its model can be built; None if it has none.

    Options that name other weights are removed, because every tensor comes from the file. ConfigTextError: see
    ``plain_config``; or if the config describes no model.
    """
    text = meta_of(checkpoint).get('config')
    if text is None or text == '':
        return None
    values = plain_config(text, source)
    model = values.get('model')
    if not (isinstance(model, dict) and isinstance(model.get('type'), str)):
        raise _refused(source, f'describes no model: expected model=dict(type=..., ...), got {str(model)[:60]!r}')
    try:
        values['model'] = of_this_file(model)
    except ValueError as error:
        raise _refused(source, f'has an option that files do not set: {error}') from None
    return without_machine(values)


def without_machine(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same config without the keys that tell where a run was, and nothing about what was trained."""
    return {key: value for key, value in values.items() if key not in OF_ONE_MACHINE}


def plain_config(text: Any, source: str) -> dict[str, Any]:
    """The values of a config from inside a file: lines ``key = value`` of numbers, texts, lists, dicts, dict(...), float('inf').

    ConfigTextError for anything else; for a key that stands twice; for more than 1 MB; for a substitution ({{...}}, in
    comments too); for what would bring in something from elsewhere (see ``refuse_foreign``).
    """
    if not isinstance(text, str) or len(text) > MOST_TEXT:
        given = f'has {len(text)} characters' if isinstance(text, str) else f'is of type {type(text).__name__}'
        raise _refused(source, f'{given}; expected a text of at most {MOST_TEXT}')
    if found := SUBSTITUTION.search(text):
        raise _refused(source, f'has a substitution, {found[0][:60]!r}; none is made')
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _refused(source, f'cannot be read: {error or type(error).__name__}') from error
    values: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        try:
            if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
                raise ValueError('is more than values')
            if (name := node.targets[0].id) in values:  # not by _once: it would go through all values for each line
                raise ValueError('is ambiguous: a key stands twice')
            values[name] = _value(node.value)
        except ValueError as error:
            part = (ast.get_source_segment(text, node) or '?').splitlines()[0][:60]
            raise _refused(source, f'{error} (line {node.lineno}: {part!r}); it is not run') from None
    refuse_foreign(values, source)
    return values


def _once(pairs: list[tuple[Any, Any]]) -> dict:
    """A dict; ValueError for a key that stands twice."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError('is ambiguous: a key stands twice')
    return dict(pairs)


def _value(node: ast.expr) -> Any:
    """ValueError for what is no value. ast.parse ends at 200 levels, and ``refuse_foreign`` before."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, NoneType)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = getattr(node.operand, 'value', None)
        if isinstance(number, (int, float)):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, (ast.List, ast.Tuple)):
        items = map(_value, node.elts)
        return list(items) if isinstance(node, ast.List) else tuple(items)
    call = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None
    if call == 'float' and len(node.args) == 1 and not node.keywords:
        if (word := getattr(node.args[0], 'value', None)) in ('inf', '-inf', 'nan'):
            return float(word)
    if call == 'dict' and not node.args and all(word.arg for word in node.keywords):
        keys, values = [word.arg for word in node.keywords], [word.value for word in node.keywords]
    elif isinstance(node, ast.Dict) and None not in node.keys:
        keys, values = [_value(key) for key in node.keys], node.values
    else:
        raise ValueError('is more than values')
    if any(isinstance(key, (list, dict, tuple)) for key in keys):
        raise ValueError('is more than values: a key is a text or a number')
    return _once(list(zip(keys, map(_value, values), strict=True)))


def plain_json(text: Any, source: str) -> dict[str, Any]:
    """The same for a dict written as JSON."""
    try:
        values = json.loads(text, object_pairs_hook=_once)
    except (TypeError, ValueError, RecursionError) as error:
        raise _refused(source, f'cannot be read as JSON: {error}') from error
    if not isinstance(values, dict):
        raise _refused(source, f'is a {type(values).__name__}; expected a dict')
    refuse_foreign(values, source)
    return values


def refuse_foreign(value: Any, source: str, where: str = '', depth: int = 0) -> None:
    """ConfigTextError, with the key and its place, for anything that refers to something outside the file.

    These are ``_base_``, ``custom_imports`` and import folders (at any depth), scopes of other packages, substitutions, and
    ``type='module.function'``, which a registry would import and call.
    """
    if depth > MOST_DEPTH:
        raise _refused(source, f'is more than {MOST_DEPTH} levels deep ({where[:60]}...)')
    if isinstance(value, str) and (found := SUBSTITUTION.search(value)):
        raise _refused(source, f'has a substitution ({where}: {found[0][:60]!r}); none is made')
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    for key, item in value.items() if isinstance(value, Mapping) else ():
        here, problem = f'{where}.{key}'.lstrip('.'), None
        if re.sub('[^a-z_]', '', str(key).lower()) in FOLLOWED and item:
            problem = f"has '{key}' ({here}): what is inside a file follows no other file and imports nothing"
        elif key in ('_scope_', 'default_scope') and item not in (None, *SCOPES):
            problem = f'has {here}={item!r}; expected one of {", ".join(SCOPES)}'
        elif key == 'type' and item is not None and not (isinstance(item, str) and item.isidentifier()):
            problem = (
                f'asks for type={item!r} ({here}): files name registered classes only, as a function of any module could be '
                'called this way'
            )
        if problem:
            raise _refused(source, problem)
        refuse_foreign(str(key), source, here, depth + 1)
        refuse_foreign(item, source, here, depth + 1)
