"""``--cfg-options a.b.c=value``: change one place of a config, or add to it, without a file of one's own."""

import re
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from mmkernel.checks import did_you_mean, slips
from mmkernel.engine.allowed_keys import TOP_LEVEL, ConfigError, is_typed, reader_of
from mmkernel.engine.config_shape import LISTS, PARTS

# Dicts whose keys are names that their author chose: hooks, views, operations, heads, parts of a model. A new name brings a dict.
NAMED = re.compile(
    r'default_hooks|.*\.views|.*\.ops|.*\.heads|optim_wrapper\.paramwise_cfg\.custom_keys|visualizer\.vis_backends'
)


def set_option(cfg: Config, key: str, value: Any) -> None:
    """``cfg.a.b[0].c = value`` for the key 'a.b.0.c'.

    A dict is merged key by key, and another ``type`` takes along what only the former could read. An item of a list or tuple is
    replaced; the number after the last, or +, appends. New are a key that the reader of its dict takes, at any depth, and a named
    hook, view, operation ... that is given with its type. ConfigError for any other key, with the nearest there is.
    """
    _put(cfg, cfg._cfg_dict, key.split('.'), value, '', key)


def in_order(options: Mapping[str, Any]) -> list[str]:
    """Keys of options: whole dicts and lists before parts of them, and a type before what belongs to it."""
    return sorted(options, key=lambda key: (key.count('.'), key.rpartition('.')[2] != 'type'))


def _put(cfg: Config, node: Any, parts: list[str], value: Any, where: str, key: str) -> Any:
    """``node`` with ``value`` at ``parts`` below it; lists and tuples are made anew, the rest is changed."""
    if not parts:
        return _merged(cfg, node, value, where, key) if isinstance(value, Mapping) else value
    name, *rest = parts
    here = f'{where}.{name}'.lstrip('.')
    if isinstance(node, Mapping):
        if name not in node:
            _check_new(cfg, node, name, rest, value, where, key)
        elif name == 'type' and not rest:
            _drop_of_former(cfg, node, value, where)
        new = [] if here in LISTS else ConfigDict()
        below = new if rest and node.get(name) is None else node.get(name)
        node[name] = _put(cfg, below, rest, value, here, key)
        return node
    if not isinstance(node, (list, tuple)):
        raise ConfigError(f"--cfg-options {key}: '{where}' is {node!r} and has no key '{name}'.")
    if name in ('+', str(len(node))) and rest in ([], ['type']):
        return type(node)([*node, _put(cfg, ConfigDict() if rest else None, rest, value, here, key)])
    if not name.isdecimal() or int(name) >= len(node):
        text = f"--cfg-options {key}: '{where}' is a list of {len(node)} items; '{name}' is none of them."
        raise ConfigError(f'{text} {where}.+=... adds one.')
    return type(node)(
        _put(cfg, item, rest, value, here, key) if i == int(name) else item for i, item in enumerate(node)
    )


def _merged(cfg: Config, node: Any, value: Mapping, where: str, key: str) -> ConfigDict:
    kept = isinstance(node, Mapping) and not value.get('_delete_')
    node = node if kept else ConfigDict()
    if 'type' in value and 'type' in node:
        _drop_of_former(cfg, node, value['type'], where)
    for name, item in value.items():
        node[name] = _put(cfg, node.get(name), [], item, f'{where}.{name}'.lstrip('.'), key)
    node.pop('_delete_', None)
    return node


def _drop_of_former(cfg: Config, node: Mapping, kind: Any, where: str) -> None:
    """Take out of ``node`` what its type reads and ``kind`` does not. Whether there is such a type, ``check_config`` says."""
    if not is_typed(node) or not isinstance(kind, str) or kind == node['type']:
        return
    try:
        before, after = reader_of(cfg, node, where), reader_of(cfg, {'type': kind}, where)
    except ConfigError:
        return
    for name in [name for name in node if name != 'type'] if not after.anything else ():
        if name not in after.keys and (name in before.keys or before.anything):
            del node[name]


def _check_new(cfg: Config, node: Mapping, name: str, rest: list[str], value: Any, where: str, key: str) -> None:
    """ConfigError unless the dict ``node`` at ``where`` may get the key ``name``, which it does not have."""
    here = f'{where}.{name}'.lstrip('.')
    if where and not node and not rest:
        return  # the first key of a dict that is new itself
    if NAMED.fullmatch(where):
        whole = isinstance(value, Mapping) if not rest else rest == ['type'] or where.endswith('.custom_keys')
        near = next((known for known in node if is_slip(name, known)), None)
        if (whole or (not rest and value is None)) and near is None:
            return
        hint = f"Did you mean '{near}'?" if near else f"A new one comes with its type: {here}=dict(type='...')."
        if near is None and where.endswith('.views'):
            hint = f'A new one is a dict: {here}=dict(size=..., crop=...).'
    else:
        reader = reader_of(cfg, node, where)
        known = reader.keys if where else [*TOP_LEVEL]
        # below what is not there yet, only where it is known what will read it
        if name in known and (not rest or where or here in PARTS or (here in LISTS and rest[1:] in ([], ['type']))):
            return
        if where and not rest and reader.name:
            return  # ``check_config`` names the nearest that this reader takes
        if name in known:  # it is right, and there is nothing yet to change in it
            text = f"the config has no '{name}' to change a part of. Give the whole: {name}=..."
            raise ConfigError(f'--cfg-options {key}: {text}')
        hint = did_you_mean(name, [*node, *known], cutoff=0.6)
    there = f' Keys there: {", ".join(node)}.' if node else ''
    raise ConfigError(f"--cfg-options {key}: the config has no key '{here}'. {hint}".rstrip() + there)


def is_slip(name: str, known: str) -> bool:
    """Whether a new ``name`` is ``known``, mistyped: not 'blur2' beside 'blur', nor 'view2' beside 'view1'."""
    bare = [re.sub(r'[\d_]+', '', word) for word in (name, known)]
    return bare[0] != bare[1] and slips(name, known) <= 2 and not name.startswith(known) and len(known) > 3
