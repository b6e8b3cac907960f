"""Read a config, override single keys, refuse what it cannot mean, and train what it describes."""

import copy
import difflib
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mmkernel.checks import did_you_mean
from mmkernel.engine.allowed_keys import TOP_LEVEL, ConfigError, as_config_error, check_components, reader_of
from mmkernel.engine.allowed_values import check_options
from mmkernel.engine.checkpoint import epoch_files
from mmkernel.engine.config_file import read_config
from mmkernel.engine.config_shape import NOT_HERE, check_run
from mmkernel.engine.learning_rates import micro_batches
from mmkernel.engine.runner import Runner
from mmkernel.zoo.config_text import ordered


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """The config in ``path`` with ``cfg_options`` ({'a.b.0.c': value}) put in, checked by ``check_config``.

    Outside a checkout, 'configs/...' is found in the package, as a ``_base_`` too. The file's own folder (and each folder of a key
    ``import_folders``) joins the import path first, so that ``custom_imports=dict(imports=['my_kernel'])`` finds
    ``my_kernel.py`` beside the config. Errors: FileNotFoundError, ConfigError.
    """
    cfg = read_config(path)
    _import_custom_modules(cfg, Path(cfg.filename))
    return checked(cfg, cfg_options)


def checked(cfg: Config, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """``cfg`` with ``cfg_options`` put in, if it can mean what it says; ConfigError: see ``load_config``."""
    for key in sorted(cfg_options or {}, key=lambda key: key.count('.')):  # whole lists before items of them
        set_option(cfg, key, cfg_options[key])
    check_config(cfg)
    return cfg


def _import_custom_modules(cfg: Config, path: Path) -> None:
    if not cfg.get('custom_imports'):
        return
    # stays in the config, so that its copy in the work folder finds the modules too
    cfg.import_folders = list(dict.fromkeys([str(path.resolve().parent), *cfg.get('import_folders', [])]))
    sys.path.extend(folder for folder in cfg.import_folders if folder not in sys.path)
    modules = cfg.custom_imports.get('imports') or []
    for module in [modules] if isinstance(modules, str) else modules:
        try:
            import_module(module)
        except ImportError as error:
            if cfg.custom_imports.get('allow_failed_imports'):
                warnings.warn(f"custom_imports: '{module}' is left out: {error}", stacklevel=3)
                continue
            if not isinstance(error, ModuleNotFoundError) or not f'{module}.'.startswith(f'{error.name}.'):
                raise  # the module is there; its own error says which line fails
            beside = [path.stem for folder in cfg.import_folders for path in Path(folder).glob('*.py')]
            places = f'{", ".join(cfg.import_folders)} or on PYTHONPATH'
            text = f"custom_imports: there is no module '{module}' in {places}. {did_you_mean(module, beside)}"
            raise ConfigError(text.rstrip()) from None


def check_config(cfg: Config) -> None:
    """ConfigError for a mistyped top-level key (others are helper variables), an unknown ``type``, or a wrong option."""
    check_run(cfg)
    for key in [key for key in cfg if key not in (*TOP_LEVEL, *NOT_HERE)]:
        near = next((known for known in TOP_LEVEL if slips(key, known) <= 2), None)
        if near and not (isinstance(cfg[key], (str, float, int)) and isinstance(cfg.get(near), Mapping)):
            raise ConfigError(f"Unknown top-level key '{key}'. Did you mean '{near}'? (Rename a helper variable.)")
        if like := did_you_mean(key, TOP_LEVEL, cutoff=0.7):
            warnings.warn(f"The top-level key '{key}' is a helper variable: nothing reads it. {like}", stacklevel=3)
    read = {key: cfg._cfg_dict[key] for key in cfg if key in TOP_LEVEL}  # nobody reads what helper variables hold
    check_components(read)
    check_options(read)
    check_virtual_batch(cfg)


def slips(word: str, known: str) -> float:
    """The number of letters of both words that do not match: 2 for 'modle' and 'model'."""
    return round((1 - difflib.SequenceMatcher(None, word, known).ratio()) * (len(word) + len(known)))


def check_virtual_batch(cfg: Config, world_size: int = 1) -> int:
    """Micro-batches per step; ConfigError for a virtual batch that is not a multiple of the batch, or beside accumulation."""
    if (virtual := (cfg.get('train_cfg') or {}).get('virtual_batch')) is None:
        return 1
    if (accumulated := (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)) > 1:
        raise ConfigError(
            f'train_cfg.virtual_batch = {virtual} is one exact batch, optim_wrapper.accumulative_counts = {accumulated} averages '
            'the losses of several: remove accumulative_counts.'
        )
    with as_config_error():
        loader = cfg.get('train_dataloader') or {}
        return micro_batches(virtual, loader.get('batch_size') or virtual, world_size, bool(loader.get('drop_last')))


def set_option(cfg: Config, key: str, value: Any) -> None:
    """``cfg.a.b[0].c = value`` for the key 'a.b.0.c'. A dict value is merged key by key; an item of a tuple is replaced.

    ConfigError if the config has no such key, unless it is new at the top level or in a dict that a component reads: then
    ``check_config`` says whether it takes the key.
    """

    def put(node: Any, parts: list[str], value: Any, where: str) -> Any:
        """``node`` with ``value`` at ``parts`` below it; lists and tuples are made anew, the rest is changed."""
        if not parts and isinstance(value, Mapping):
            merged = isinstance(node, Mapping) and not value.get('_delete_')
            node = node if merged else ConfigDict()
            for name, item in value.items():
                node[name] = put(node.get(name), [], item, where)
            node.pop('_delete_', None)
            return node
        if not parts:
            return value
        name, *rest = parts
        here = f'{where}.{name}'.lstrip('.')
        if isinstance(node, Mapping):
            new = name in TOP_LEVEL if not where else reader_of(cfg, node, where).name
            if name not in node and (rest or not new):
                hint = did_you_mean(name, node if where else {**node, **dict.fromkeys(TOP_LEVEL)}, cutoff=0.6)
                text = f"--cfg-options {key}: the config has no key '{here}'. {hint}".rstrip()
                if not where and name in TOP_LEVEL:  # it is right, and there is nothing yet to change in it
                    text = f"--cfg-options {key}: the config has no '{name}' to change a part of. Give the whole: {name}=..."
                raise ConfigError(f'{text} Keys there: {", ".join(node)}.')
            node[name] = put(node.get(name), rest, value, here)
            return node
        if not isinstance(node, (list, tuple)):
            raise ConfigError(f"--cfg-options {key}: '{where}' is {node!r} and has no key '{name}'.")
        if not name.isdecimal() or int(name) >= len(node):
            raise ConfigError(
                f"--cfg-options {key}: '{where}' is a list of {len(node)} items; '{name}' is none of them."
            )
        return type(node)(put(item, rest, value, here) if i == int(name) else item for i, item in enumerate(node))

    put(cfg._cfg_dict, key.split('.'), value, '')


def default_work_dir(cfg: Config) -> str:
    """``work_dirs/<folder of the config>/<its stem>``: several methods have a config called digits.py."""
    path = Path(cfg.filename or 'run').resolve()
    return str(Path('work_dirs') / (path.parent.name if cfg.filename else '') / path.stem)


def train(cfg: Config, resume: bool | str | Path = False, resume_anyway: bool = False) -> Runner:
    """Train ``cfg`` to the end and return its Runner (``runner.model`` is the model).

    ``resume=True`` continues from the furthest checkpoint of the work folder that opens (from the beginning in a folder
    without any); a path continues from that file. ``resume_anyway=True`` does so even if model, objective, views or data have
    changed. Errors: RunFolderError, OtherRunError, ConfigError.
    """
    if (cfg.get('optim_wrapper') or {}).get('precision') == 'float16' and not torch.cuda.is_available():
        raise ConfigError("precision='float16' needs a GPU, and here is none. Use --amp bf16 (precision='bfloat16').")
    cfg = copy.deepcopy(ordered(cfg))  # the Runner writes into it
    cfg.work_dir = cfg.get('work_dir') or default_work_dir(cfg)
    if resume_anyway:
        cfg.resume_anyway, resume = True, resume or True
    if resume is True and cfg.get('load_from') and not epoch_files(cfg.work_dir):
        resume = False  # nothing to go on with: the run begins, with the weights that its config names
    if resume:
        cfg.resume, cfg.load_from = True, None if resume is True else str(resume)
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner
