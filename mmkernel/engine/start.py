"""From a checked config to a trained model."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from mmengine.config import Config

from mmkernel.engine.check import ConfigError
from mmkernel.engine.checkpoint import epoch_files
from mmkernel.engine.runner import Runner
from mmkernel.zoo.config_text import ordered


def default_work_dir(cfg: Config) -> str:
    """``work_dirs/<folder of the config>/<its stem>``: several methods have a config called digits.py."""
    path = Path(cfg.filename or 'run').resolve()
    return str(Path('work_dirs') / (path.parent.name if cfg.filename else '') / path.stem)


def train(cfg: Config, resume: bool | str | Path = False, resume_anyway: bool = False) -> Runner:
    """Train ``cfg`` to the end and return its Runner (``runner.model`` is the model).

    ``resume=True`` continues from the furthest checkpoint of the work folder that opens (from the beginning in a folder
    without any); a path continues from that file. ``resume_anyway=True`` does so even if the config changes model,
    objective, views or data. Errors: RunFolderError, OtherRunError, ConfigError.
    """
    if cfg.get('optim_wrapper', {}).get('precision') == 'float16' and not torch.cuda.is_available():
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
