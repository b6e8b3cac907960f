"""mmengine's Runner with our checkpoints, our launcher, and errors for what it would let pass."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from mmengine.runner import Runner as _Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

import mmkernel
from mmkernel.datasets import check_dataloader, part_of_epoch
from mmkernel.engine.allocator import keep_freed_memory
from mmkernel.engine.check_options import as_config_error
from mmkernel.engine.clocks import check_clocks
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.launch import init_processes
from mmkernel.engine.loop import PretrainLoop
from mmkernel.engine.parameter_rates import check_custom_keys, check_groups
from mmkernel.engine.persistence import ResumableRunner
from mmkernel.engine.random_state import seed_worker
from mmkernel.engine.scaling import describe_scaling, describe_weights, effective_batch, lr_factor
from mmkernel.engine.schedule import check_rates_kept, unmoved
from mmkernel.engine.wrapping import wrap_model
from mmkernel.evaluation.report import set_aside
from mmkernel.registry import PARAM_SCHEDULERS, RUNNERS

MMENGINE_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
_runs = itertools.count()


@RUNNERS.register_module()
class Runner(ResumableRunner):
    """Trains one model from one config; every override below mends one thing that mmengine 0.10.7 does otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # loggers, message hubs and visualizers are global by experiment name: two runs in one second would share them
        cfg = kwargs.get('cfg') or {}
        stem = kwargs.get('experiment_name') or Path(getattr(cfg, 'filename', None) or 'run').stem
        self._asked = dict(resume=kwargs.get('resume', False), load_from=kwargs.get('load_from'))
        try:
            super().__init__(*args, **{**kwargs, 'experiment_name': f'{stem}_{os.getpid()}_{next(_runs)}'})
        except BaseException:
            self._leave_folder()
            raise

    # Processes, devices, model

    def setup_env(self, env_cfg: dict) -> None:
        init_processes(self.launcher, **(env_cfg.get('dist_cfg') or {}))
        torch.set_float32_matmul_precision(env_cfg.get('matmul_precision', 'highest'))
        if not torch.cuda.is_available():
            keep_freed_memory()
        super().setup_env(env_cfg)
        if self._train_loop is not None:
            self.take_folder(**self._asked)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        return wrap_model(model, self.cfg, self.distributed)

    # Data, learning rate, schedules

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        if isinstance(dataloader, DataLoader):
            return dataloader
        dataloader = dict(dataloader)
        if not dataloader.get('num_workers'):  # torch refuses these two without workers
            dataloader.pop('prefetch_factor', None)
            dataloader.pop('persistent_workers', None)
        if not torch.cuda.is_available():
            dataloader.pop('pin_memory', None)  # torch warns: there is nothing to pin for
        dataloader = part_of_epoch(dataloader)
        own_worker_seed = 'worker_init_fn' in dataloader
        loader = _Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if not own_worker_seed:
            loader.worker_init_fn = seed_worker
        # workers are seeded from a stream of their own (SeedHook sets it): starting them, which happens at other times in
        # a resumed run, must not shift the draws of dropout
        loader.generator = torch.Generator()
        dataset = getattr(loader.dataset, '_dataset', loader.dataset)  # num_batch_per_epoch wraps it
        if seed is not None and hasattr(dataset, 'seed'):
            dataset.seed = seed
        if not hasattr(dataset, 'metainfo'):
            dataset.metainfo = {}  # mmengine warns without one
        with as_config_error():
            check_dataloader(loader)
        return loader

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Multiply the written learning rates by lr_scaling's factor. The config keeps the written ones."""
        loader, rule = self.train_dataloader, self.cfg.get('lr_scaling')
        batch = loader.batch_size or loader.batch_sampler.batch_size
        images = getattr(self.train_loop, 'virtual_batch', None) or effective_batch(
            batch, self.world_size, getattr(optim_wrapper, '_accumulative_counts', 1)
        )
        text = describe_scaling(rule, optim_wrapper.param_groups[0]['lr'], images)
        for group in optim_wrapper.param_groups:
            group['lr'] *= lr_factor(rule, images)
        self.logger.info(f'Effective batch {images}, learning rate {text}.')

    def build_train_loop(self, loop: Any) -> BaseLoop:
        if isinstance(loop, dict) and 'type' not in loop and loop.get('by_epoch', True):
            settings = {key: value for key, value in loop.items() if key != 'by_epoch'}
            return PretrainLoop(self, self._train_dataloader, **settings)
        return super().build_train_loop(loop)

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        if isinstance(optim_wrapper, dict):
            check_custom_keys(optim_wrapper, unwrap(self.model))
        wrapper = super().build_optim_wrapper(optim_wrapper)
        if hasattr(wrapper, 'optimizer'):
            check_groups(wrapper.optimizer)
        if isinstance(self._train_loop, EpochBasedTrainLoop) and hasattr(wrapper, 'epoch_length'):
            wrapper.epoch_length = len(self.train_dataloader)
        return wrapper

    def _build_param_scheduler(self, scheduler: Any, optim_wrapper: OptimWrapper) -> list:
        items = [scheduler] if isinstance(scheduler, dict) else scheduler
        items = [
            {**item, 'convert_to_iter_based': True}
            if isinstance(item, dict) and getattr(self._scheduler_class(item), 'per_step', False)
            else item
            for item in (items if isinstance(items, (list, tuple)) else [items])
        ]
        before = [group['lr'] for group in optim_wrapper.param_groups]
        with unmoved(optim_wrapper):
            schedulers = super()._build_param_scheduler(items, optim_wrapper)
        check_rates_kept(optim_wrapper, before, schedulers)
        return schedulers

    @staticmethod
    def _scheduler_class(item: dict) -> Any:
        return PARAM_SCHEDULERS.get(item['type']) if isinstance(item['type'], str) else item['type']

    def train(self) -> nn.Module:
        loader = self._train_dataloader
        batch = loader.get('batch_size') if isinstance(loader, dict) else loader.batch_size
        virtual = self._train_loop.get('virtual_batch') if isinstance(self._train_loop, dict) else None
        check_clocks(unwrap(self.model), self.hooks, virtual or (batch and batch * self.world_size), self.world_size)
        for name, text in describe_weights(unwrap(self.model)):
            self.logger.info(f'{name}: {text}.')
        try:
            return super().train()
        finally:
            if isinstance(self._train_loop, BaseLoop):
                # ends persistent workers now: left to the garbage collector, each may cost five seconds at a later time
                loader = self.train_dataloader
                getattr(loader, 'micro_batches', loader)._iterator = None
            self._leave_folder()

    def _leave_folder(self) -> None:
        if hasattr(self, 'folder'):
            self.folder.release()

    # Hooks and logs

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """A child config takes a hook out by setting it to None; mmengine allows that for its own hooks only."""
        hooks = {name: hook for name, hook in (hooks or {}).items() if hook is not None or name in MMENGINE_HOOKS}
        super().register_default_hooks(hooks)

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:  # mmengine repeats the name of the run after each epoch
            handler.addFilter(lambda record: not str(record.msg).startswith('Exp name: '))
        return logger

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """Where the config names one folder for the logs of all runs, mmengine would write over those of an earlier one."""
        if isinstance(visualizer, dict) and is_main_process():
            folder = Path(visualizer.get('save_dir') or self._log_dir) / 'vis_data'
            for path in (folder / 'config.py', folder / 'scalars.json'):
                if path.exists():
                    set_aside(path)
        return super().build_visualizer(visualizer)

    def dump_config(self) -> None:
        """Not yet: ``load_or_resume`` writes it, when the run is known to begin."""

    def get_hooks_info(self) -> str:
        return ', '.join(type(hook).__name__ for hook in self.hooks)

    def _log_env(self, env_cfg: dict) -> None:
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'
        )
        self.logger.info(
            f'mmkernel {mmkernel.__version__}, torch {torch.__version__}, {self.world_size} process(es) on {device}, '
            f'seed {self.seed}. The resolved config is {Path(self.work_dir) / "config.py"}.'
        )
