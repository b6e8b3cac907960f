"""Read a config, refuse what it cannot mean, and override single keys."""

from __future__ import annotations

import difflib
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmkernel.checks import did_you_mean
from mmkernel.engine.check import READ_BY_NAME, ConfigError, accepted_by, check_component_tree, check_names, check_run
from mmkernel.engine.check_options import as_config_error, check_options
from mmkernel.engine.scaling import micro_batches
from mmkernel.zoo.catalogue import root
from mmkernel.zoo.config_text import ordered

TOP_LEVEL = (
    'model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'lr_scaling',
    'evaluation', 'randomness', 'default_scope', 'default_hooks', 'custom_hooks', 'custom_imports', 'import_folders',
    'work_dir', 'load_from', 'resume', 'resume_anyway', 'launcher', 'env_cfg', 'log_level', 'log_processor', 'visualizer',
    'sync_bn', 'channels_last', 'find_unused_parameters', 'num_samples', 'experiment_name', 'compile', 'activation_checkpointing',
    'tf32', 'efficient_conv_bn_eval', 'model_wrapper_cfg', 'val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader',
    'test_cfg', 'test_evaluator',
)  # fmt: skip


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """The config in ``path`` with ``cfg_options`` ({'a.b.0.c': value}) put in, checked by ``check_config``.

    Outside a checkout, 'configs/...' is found in the package. The file's own folder (and each folder of a key
    ``import_folders``) joins the import path first, so that ``custom_imports=dict(imports=['my_kernel'])`` finds
    ``my_kernel.py`` beside the config. Errors: FileNotFoundError; ConfigError for an unknown key, type or keyword, naming
    the nearest right one.
    """
    path = packaged(path)
    if not path.is_file():
        hint = did_you_mean(path.name, [p.name for p in path.parent.glob('*.py')], n=3)
        raise FileNotFoundError(f"There is no config '{path}'. {hint}".rstrip())
    _check_bases(path)
    check_contradictions((cfg_options or {}).items())
    cfg = ordered(Config.fromfile(str(path), import_custom_modules=False))
    _import_custom_modules(cfg, path)
    return checked(cfg, cfg_options)


def checked(cfg: Config, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """``cfg`` with ``cfg_options`` put in, if it can mean what it says; ConfigError: see ``load_config``."""
    for key in sorted(cfg_options or {}, key=lambda key: key.count('.')):  # whole lists before items of them
        set_option(cfg, key, cfg_options[key])
    check_config(cfg)
    return cfg


def packaged(path: str | Path) -> Path:
    """``path``, or where nothing lies there, the config of that name that came with the package ('configs/...')."""
    path = Path(path)
    if path.is_file() or path.is_absolute() or path.parts[:1] != ('configs',):
        return path
    inside = root() / path
    return inside if inside.is_file() else path


def _check_bases(path: Path, below: tuple[Path, ...] = ()) -> None:
    """ConfigError if a config inherits from itself, which mmengine follows without end; FileNotFoundError for a lost _base_."""
    path = path.resolve()
    if path in below:
        raise ConfigError(f'The _base_ files form a circle: {" -> ".join(p.name for p in (*below, path))}.')
    if not path.is_file():
        raise FileNotFoundError(
            f"'{below[-1]}' has _base_ '{path}', which does not exist. _base_ is a path from the config's folder, or an absolute "
            f'one; the configs of mmkernel are in {root() / "configs"}.'
        )
    for base in Config._get_base_files(str(path)):
        if '::' not in base:  # a config of an installed package
            _check_bases(path.parent / base, (*below, path))


def _import_custom_modules(cfg: Config, path: Path) -> None:
    if not cfg.get('custom_imports'):
        return
    check_names(cfg.custom_imports, READ_BY_NAME['custom_imports'], 'custom_imports')
    # kept in the config, so that the copy in the work folder finds the modules too
    cfg.import_folders = list(dict.fromkeys([str(path.resolve().parent), *cfg.get('import_folders', [])]))
    sys.path.extend(folder for folder in cfg.import_folders if folder not in sys.path)
    modules = cfg.custom_imports.get('imports') or []
    for module in [modules] if isinstance(modules, str) else modules:
        _import_module(str(module), cfg.import_folders, bool(cfg.custom_imports.get('allow_failed_imports')))


def _import_module(module: str, folders: list[str], may_fail: bool) -> None:
    try:
        import_module(module)
    except ImportError as error:
        if may_fail:
            warnings.warn(f"custom_imports: '{module}' is left out: {error}", stacklevel=4)
            return
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not f'{module}.'.startswith(f'{missing}.'):
            raise  # the module is there; its own error says which line fails
        near = did_you_mean(module, [path.stem for folder in folders for path in Path(folder).glob('*.py')])
        raise ConfigError(
            f"custom_imports: there is no module '{module}' in {', '.join(folders)} or on PYTHONPATH. {near}".rstrip()
        ) from None


def check_config(cfg: Config) -> None:
    """Raise ConfigError for a mistyped top-level key, an unknown ``type``, or a keyword that its class does not take.

    Other unknown top-level keys are legal: they are helper variables of the config. One like a known name is warned of.
    """
    _check_top_level(cfg)
    read = {key: cfg._cfg_dict[key] for key in cfg if key in TOP_LEVEL}  # nobody reads what helper variables hold
    check_component_tree(read)
    check_options(read)
    check_virtual_batch(cfg)


def _check_top_level(cfg: Config) -> None:
    check_run(cfg)
    for key in [key for key in cfg if key not in TOP_LEVEL]:
        near = [known for known in TOP_LEVEL if edit_distance(key, known) <= 2]
        if near and not (isinstance(cfg[key], (str, float, int)) and isinstance(cfg.get(near[0]), Mapping)):
            raise ConfigError(
                f"Unknown top-level key '{key}'. Did you mean '{near[0]}'? (A helper variable needs another name.)"
            )
        if like := did_you_mean(key, TOP_LEVEL, cutoff=0.7):
            text = f"The top-level key '{key}' is taken for a helper variable: nothing reads it. {like}"
            warnings.warn(text, stacklevel=3)


def check_virtual_batch(cfg: Config, world_size: int = 1) -> int:
    """Micro-batches per step; ConfigError for a virtual batch that is no multiple of the batch, or beside accumulation."""
    virtual = cfg.get('train_cfg', {}).get('virtual_batch')
    if virtual is None:
        return 1
    accumulated = cfg.get('optim_wrapper', {}).get('accumulative_counts', 1)
    if accumulated > 1:
        raise ConfigError(
            f'train_cfg.virtual_batch = {virtual} is one exact batch; optim_wrapper.accumulative_counts = {accumulated} averages '
            'the losses of several. Keep one of them: remove accumulative_counts.'
        )
    loader = cfg.get('train_dataloader') or {}
    if not loader.get('batch_size'):
        return 1
    with as_config_error():
        return micro_batches(virtual, loader['batch_size'], world_size, bool(loader.get('drop_last')))


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: insertions, deletions and substitutions from ``a`` to ``b``."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]


def check_contradictions(options: Iterable[tuple[str, Any]]) -> None:
    """ConfigError if two options say different things of one place: a.b=1 beside a={'b': 2}, or beside a.b=2.

    An item of a list is no contradiction to the list: it is put in afterwards.
    """
    said: dict[str, tuple[Any, str]] = {}
    for key, value in options:
        for place, leaf in ((key, value), *_leaves(key, value)):
            before, text = said.setdefault(place, (leaf, f'{key}={value!r}'))
            if before != leaf and not (isinstance(before, Mapping) and isinstance(leaf, Mapping)):
                raise ConfigError(
                    f'Two options say different things of {place}: {text} and {key}={value!r}. Leave one of them out.'
                )


def _leaves(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(place, value) of what nested dicts hold."""
    if not isinstance(value, Mapping):
        yield place, value
        return
    for key, part in value.items():
        yield from _leaves(f'{place}.{key}', part)


def set_option(cfg: Config, key: str, value: Any) -> None:
    """``cfg.a.b[0].c = value`` for the key 'a.b.0.c'; ConfigError if the config has no such key.

    A key that is absent is right only if the component at that place takes it as a keyword (or Runner does, at the top).
    A dict value is merged key by key; an item of a tuple is replaced.
    """
    _assign(cfg._cfg_dict, key.split('.'), value, key, '')


def _assign(node: Any, parts: list[str], value: Any, key: str, where: str) -> Any:
    """Put ``value`` at ``parts`` below ``node`` and return the new node (tuples are replaced, the rest is changed)."""
    if not parts:
        if isinstance(value, Mapping) and isinstance(node, Mapping) and not value.get('_delete_'):
            for name, item in value.items():
                _assign(node, [name], item, f'{key}.{name}', where)
            return node
        if isinstance(value, Mapping):  # a ConfigDict, so that dotted access works below it
            return ConfigDict({name: item for name, item in value.items() if name != '_delete_'})
        return value
    name, here = parts[0], f'{where}.{parts[0]}'.lstrip('.')
    if isinstance(node, Mapping):
        if name not in node:
            _refuse_unknown(node, name, key, where, nested=len(parts) > 1)
        node[name] = _assign(node.get(name), parts[1:], value, key, here)
        return node
    if isinstance(node, (list, tuple)):
        if not re.fullmatch(r'\d+', name) or int(name) >= len(node):
            raise ConfigError(
                f"--cfg-options {key}: '{where}' is a list of {len(node)} items, '{name}' is no index of it."
            )
        items = list(node)
        items[int(name)] = _assign(items[int(name)], parts[1:], value, key, here)
        return type(node)(items)
    raise ConfigError(f"--cfg-options {key}: '{where}' is {node!r} and has no key '{name}'.")


def _refuse_unknown(node: Mapping, name: str, key: str, where: str, nested: bool) -> None:
    known, anything = (list(TOP_LEVEL), False) if not where else accepted_by(node, where)
    near = difflib.get_close_matches(name, [*node, *known], n=1, cutoff=0.6)
    mistyped = bool(near) and edit_distance(name, near[0]) <= 2
    if not nested and (name in known or (anything and not mistyped)):
        return
    hint = f"Did you mean '{'.'.join(filter(None, [where, near[0]]))}'? " if near else ''
    raise ConfigError(
        f"--cfg-options {key}: the config has no key '{'.'.join(filter(None, [where, name]))}'. {hint}"
        f'Keys there: {", ".join(node)}.'
    )
