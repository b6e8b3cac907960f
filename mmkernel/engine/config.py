"""Read a config, override single keys, refuse what it cannot mean, and train what it describes."""

import copy
import sys
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmkernel.checks import did_you_mean, slips
from mmkernel.engine.allowed_keys import TOP_LEVEL, ConfigError, as_config_error, check_components
from mmkernel.engine.allowed_values import check_options
from mmkernel.engine.checkpoint import epoch_files
from mmkernel.engine.config_file import read_config
from mmkernel.engine.config_option import in_order, set_option
from mmkernel.engine.config_shape import NOT_HERE, check_run
from mmkernel.engine.learning_rates import micro_batches
from mmkernel.engine.runner import Runner
from mmkernel.zoo.config_text import ordered


def load_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """The config in ``path`` with ``cfg_options`` ({'a.b.0.c': value}) put in, checked by ``check_config``.

    Outside a checkout, 'configs/...' is found in the package, as a ``_base_`` too. The file's own folder (and each folder of a key
    ``import_folders``) joins the import path first, so that ``custom_imports=dict(imports=['my_kernel'])`` finds
    ``my_kernel.py`` beside the config; of ``cfg_options``, where the command is given, too. Errors: FileNotFoundError, ConfigError.
    """
    cfg, options = read_config(path), dict(cfg_options or {})
    folder = Path(cfg.filename).resolve().parent
    if imports := [key for key in in_order(options) if key.partition('.')[0] == 'custom_imports']:
        for key in imports:  # first: the other options may name what is in these modules
            set_option(cfg, key, options.pop(key))
        cfg.import_folders = [*cfg.get('import_folders', []), str(Path.cwd())]
    _import_custom_modules(cfg, folder)
    return checked(cfg, options)


def checked(cfg: Config, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """``cfg`` with ``cfg_options`` put in, if it can mean what it says; ConfigError: see ``load_config``."""
    for key in in_order(cfg_options or {}):
        set_option(cfg, key, cfg_options[key])
    check_config(cfg)
    return cfg


def _import_custom_modules(cfg: Config, folder: Path) -> None:
    if not cfg.get('custom_imports'):
        return
    # stays in the config, so that its copy in the work folder finds the modules too
    cfg.import_folders = list(dict.fromkeys([str(folder), *cfg.get('import_folders', [])]))
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


def check_virtual_batch(cfg: Config, world_size: int = 1) -> int:
    """Micro-batches per step; ConfigError for a virtual batch that is not a multiple of the batch, or beside accumulation."""
    if (virtual := (cfg.get('train_cfg') or {}).get('virtual_batch')) is None:
        return 1
    if (accumulated := (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)) > 1:
        raise ConfigError(
            f'train_cfg.virtual_batch = {virtual} is one exact batch, optim_wrapper.accumulative_counts = {accumulated} averages '
            'the losses of several: remove accumulative_counts (--cfg-options optim_wrapper.accumulative_counts=1).'
        )
    with as_config_error():
        loader = cfg.get('train_dataloader') or {}
        return micro_batches(virtual, loader.get('batch_size') or virtual, world_size, bool(loader.get('drop_last')))


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
