"""Where a run writes its log: console and file, visualizer, and a table of scalars that a spreadsheet opens."""

import csv
import itertools
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import LOG_PROCESSORS, VISBACKENDS, DefaultScope
from mmengine.visualization import BaseVisBackend, Visualizer
from mmengine.visualization.vis_backend import force_init_env

import mmkernel
from mmkernel.engine.closing import closing
from mmkernel.engine.history import LogHub
from mmkernel.engine.log_line import Lines, RunLog, Stdout
from mmkernel.engine.trackers import TRACKERS
from mmkernel.registry import VISUALIZERS
from mmkernel.writing import set_aside

_runs = itertools.count()
# Of mmengine, after each epoch; and of each parameter of a momentum encoder, which is meant to have no gradient.
NOISE = ('Exp name: ', 'is skipped since its requires_grad=False')


def open_logs(runner: Any) -> None:
    """Logger, hub, log processor and visualizer, global by experiment name: two runs in one second must not share them."""
    cfg = runner.cfg
    stem = cfg.get('experiment_name') or Path(cfg.filename or 'run').stem
    name = runner.experiment_name = f'{stem}_{os.getpid()}_{next(_runs)}_{runner.timestamp}'
    runner.log_dir = runner._log_dir = os.path.join(runner.work_dir, runner.timestamp)
    runner.default_scope = DefaultScope.get_instance(name, scope_name=cfg.get('default_scope', 'mmkernel'))
    os.makedirs(runner.log_dir, exist_ok=True)
    file = os.path.join(runner.log_dir, f'{runner.timestamp}.log')
    runner.logger = MMLogger.get_instance(name, log_level=cfg.get('log_level', 'INFO'), log_file=file, file_mode='a')
    for handler in runner.logger.handlers:
        console = None if isinstance(handler, logging.FileHandler) else Stdout()
        if console:
            handler.setStream(console)
        handler.setFormatter(Lines(console))
        handler.addFilter(lambda record: not any(words in str(record.msg) for words in NOISE))
    device = f'CPU, {torch.get_num_threads()} threads'
    runner.logger.info(
        f'mmkernel {mmkernel.__version__}, torch {torch.__version__}, {runner.world_size} process(es) on '
        f'{torch.cuda.get_device_name() if torch.cuda.is_available() else device}, seed {runner.seed}. '
        f'The resolved config is {Path(runner.work_dir) / "config.py"}.'
    )
    if runner.folder.said:
        runner.logger.warning(runner.folder.said)
    runner.message_hub = LogHub.get_instance(name)
    runner.log_processor = LOG_PROCESSORS.build(dict(type=RunLog) | (runner._parts.get('log_processor') or {}))
    tracked = stem, runner.folder.run
    runner.visualizer = build_visualizer(runner._parts.get('visualizer'), name, runner.log_dir, tracked)
    runner.visualizer.add_config(cfg)


def close_logs(runner: Any) -> None:
    """What is open: trackers, which a run that ends well has closed, and files."""
    if hasattr(runner, 'visualizer'):
        runner.visualizer.close()
    for handler in runner.logger.handlers if hasattr(runner, 'logger') else ():
        handler.close()  # a line that comes later opens the file again


def last_lines(runner: Any) -> None:
    """``closing``, in the log."""
    runner.logger.info(closing(runner))


def build_visualizer(given: Any, name: str, folder: str, run: tuple[str, str] | None = None) -> Visualizer:
    """Build the visualizer; ``vis_backends`` is a dict of named ones, or a list. ``run``: (name, id), for trackers.

    If its folder has logs of an earlier run, they are kept as NAME.old.
    """
    if isinstance(given, Visualizer):
        return given
    settings = {'type': 'Visualizer', 'vis_backends': [dict(type='LocalVisBackend')], 'name': name, 'save_dir': folder}
    settings |= given or {}
    if isinstance(backends := settings['vis_backends'], Mapping) and 'type' not in backends:
        settings['vis_backends'] = [backend for backend in backends.values() if backend is not None]
    for backend in settings['vis_backends'] if isinstance(settings['vis_backends'], list) else ():
        if str(backend.get('type')).rpartition('.')[2] in TRACKERS:
            backend.setdefault('run', run)
    for file in ('config.py', 'scalars.json') if is_main_process() else ():
        if (path := Path(settings['save_dir']) / 'vis_data' / file).exists():
            set_aside(path)
    return VISUALIZERS.build(settings)


@VISBACKENDS.register_module()
class CSVBackend(BaseVisBackend):
    """``scalars.csv`` in the log folder: a line per logged step, a column per name; a new name rewrites the table."""

    experiment = property(lambda self: self.path)

    def __init__(self, save_dir: str, file: str = 'scalars.csv') -> None:
        super().__init__(save_dir)
        self.path, self.columns, self.rows = Path(save_dir) / file, [], []

    def _init_env(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            set_aside(self.path)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        row = {'step': step, **{name: float(value) for name, value in scalar_dict.items() if name != 'step'}}
        self.rows.append(row)
        new = [name for name in row if name not in self.columns]
        self.columns += new
        with self.path.open('w' if new else 'a', newline='') as file:
            writer = csv.DictWriter(file, self.columns)
            if new:
                writer.writeheader()
            writer.writerows(self.rows if new else [row])

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)
