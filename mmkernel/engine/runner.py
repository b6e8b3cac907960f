"""mmengine's Runner with our checkpoints, our launcher, and errors for what it would let pass."""

from __future__ import annotations

import inspect
import itertools
import os
import time
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.dist import broadcast, broadcast_object_list, is_main_process
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop
from mmengine.runner import Runner as _Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import mmkernel
from mmkernel.datasets import check_dataloader
from mmkernel.engine.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    weights_of,
    write_checkpoint,
)
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.launch import init_processes
from mmkernel.engine.plain import message_hub_state, plain_message_hub, to_plain
from mmkernel.engine.random_state import gather_random_states, seed_worker, set_random_state
from mmkernel.engine.scaling import describe_scaling, effective_batch, lr_factor
from mmkernel.registry import PARAM_SCHEDULERS

_runs = itertools.count()


@RUNNERS.register_module(name='mmkernel.Runner')
class Runner(_Runner):
    """Trains one model from one config; every override below mends one thing that mmengine 0.10.7 does otherwise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # loggers, message hubs and visualizers are global by experiment name: two runs in one second would share them
        cfg = kwargs.get('cfg') or {}
        stem = kwargs.get('experiment_name') or Path(getattr(cfg, 'filename', None) or 'run').stem
        super().__init__(*args, **{**kwargs, 'experiment_name': f'{stem}_{os.getpid()}_{next(_runs)}'})

    # Processes, devices, model

    def setup_env(self, env_cfg: dict) -> None:
        init_processes(self.launcher, env_cfg.get('dist_cfg', {}).get('timeout', 1800))
        torch.set_float32_matmul_precision(env_cfg.get('matmul_precision', 'highest'))
        super().setup_env(env_cfg)

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        if model_wrapper_cfg is not None:
            return super().wrap_model(model_wrapper_cfg, model)
        device = torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')
        model = model.to(device)
        if self.cfg.get('channels_last'):
            model = model.to(memory_format=torch.channels_last)
            if hasattr(getattr(model, 'data_preprocessor', None), 'channels_last'):
                model.data_preprocessor.channels_last = True
        if not self.distributed:
            return revert_sync_batchnorm(model)
        if device.type == 'cuda' and self.cfg.get('sync_bn'):
            from timm.layers import convert_sync_batchnorm  # keeps timm's fused norm + activation layers whole

            model = convert_sync_batchnorm(model)
        elif self.cfg.get('sync_bn'):
            self.logger.info('SyncBN does not exist on CPU: batch-norm statistics are those of each process.')
        for tensor in model.state_dict().values():
            broadcast(tensor)
        # torch renamed the flag in 2.13 and warns about the old name
        renamed = 'forward_sync_buffers' in inspect.signature(DistributedDataParallel.__init__).parameters
        return MMDistributedDataParallel(
            module=model,
            device_ids=[device.index] if device.type == 'cuda' else None,
            find_unused_parameters=self.cfg.get('find_unused_parameters', False),
            **{'forward_sync_buffers' if renamed else 'broadcast_buffers': False},
        )

    # Data, learning rate, schedules

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        if isinstance(dataloader, DataLoader):
            return dataloader
        dataloader = dict(dataloader)
        if not dataloader.get('num_workers'):  # torch refuses these two without workers
            dataloader.pop('prefetch_factor', None)
            dataloader.pop('persistent_workers', None)
        own_worker_seed = 'worker_init_fn' in dataloader
        loader = _Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        if not own_worker_seed:
            loader.worker_init_fn = seed_worker
        # workers are seeded from a stream of their own (SeedHook sets it): starting them, which happens at other times in
        # a resumed run, must not shift the draws of dropout
        loader.generator = torch.Generator()
        if seed is not None and hasattr(loader.dataset, 'seed'):
            loader.dataset.seed = seed
        if not hasattr(loader.dataset, 'metainfo'):
            loader.dataset.metainfo = {}  # mmengine warns without one
        check_dataloader(loader)
        return loader

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: dict | None = None) -> None:
        """Multiply the written learning rates by lr_scaling's factor. The config keeps the written ones."""
        loader, rule = self.train_dataloader, self.cfg.get('lr_scaling')
        batch = loader.batch_size or loader.batch_sampler.batch_size
        images = effective_batch(batch, self.world_size, getattr(optim_wrapper, '_accumulative_counts', 1))
        text = describe_scaling(rule, optim_wrapper.param_groups[0]['lr'], images)
        for group in optim_wrapper.param_groups:
            group['lr'] *= lr_factor(rule, images)
        self.logger.info(f'Effective batch {images}, learning rate {text}.')

    def build_optim_wrapper(self, optim_wrapper: Any) -> OptimWrapper:
        wrapper = super().build_optim_wrapper(optim_wrapper)
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
        return super()._build_param_scheduler(items, optim_wrapper)

    @staticmethod
    def _scheduler_class(item: dict) -> Any:
        return PARAM_SCHEDULERS.get(item['type']) if isinstance(item['type'], str) else item['type']

    def train(self) -> nn.Module:
        try:
            return super().train()
        finally:
            if isinstance(self._train_loop, BaseLoop):
                # ends persistent workers now: left to the garbage collector, each may cost five seconds at a later time
                self.train_dataloader._iterator = None

    # Checkpoints

    def save_checkpoint(self, out_dir: str, filename: str, meta: dict | None = None, **_: Any) -> None:
        """Write everything that the next step depends on. Every rank must call it; rank 0 writes."""
        random_states = gather_random_states()
        if not is_main_process():
            return
        checkpoint = dict(
            meta={**self._meta(), **(meta or {})},
            state_dict=unwrap(self.model).state_dict(),
            optimizer=self.optim_wrapper.state_dict(),
            param_schedulers=[scheduler.state_dict() for scheduler in self.param_schedulers or []],
            message_hub=plain_message_hub(self.message_hub.state_dict()),
            random_states=random_states,
        )
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        write_checkpoint(to_plain(checkpoint), Path(out_dir) / filename)

    def _meta(self) -> dict:
        """Position (this runs at the end of an epoch, before the counter moves), seed, config and versions."""
        return dict(
            epoch=self.epoch + 1,
            iter=self.iter,
            time=time.time(),
            seed=self.seed,
            world_size=self.world_size,
            steps_per_epoch=len(self.train_dataloader),
            config=self.message_hub.get_info('cfg', ''),  # the resolved text; the hook of mmengine puts it there
            versions=dict(mmkernel=mmkernel.__version__, torch=torch.__version__, mmengine=mmengine.__version__),
        )

    def load_checkpoint(self, filename: str, map_location: Any = 'cpu', strict: bool = True, **_: Any) -> dict:
        checkpoint = read_checkpoint(filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        report = load_weights(unwrap(self.model), weights_of(checkpoint), strict, str(filename))
        self._has_loaded = True
        self.logger.info(f'Loaded {filename}: {report}.')
        return checkpoint

    def load_or_resume(self) -> None:
        if self._has_loaded:
            return
        path = self._load_from
        if self._resume and path is None:
            found = [latest_checkpoint(self.work_dir) if is_main_process() else None]
            broadcast_object_list(found)  # all ranks resume from the same file
            if found[0] is None:
                self.logger.info(f'--resume: no checkpoint in {self.work_dir} yet, training starts from the beginning.')
            path = found[0]
        if path is not None:
            (self.resume if self._resume else self.load_checkpoint)(str(path))

    def resume(self, filename: str, **_: Any) -> None:
        """Continue exactly where ``filename`` was written: weights, optimizer, schedules, histories, random state."""
        checkpoint = self.load_checkpoint(filename)
        if 'meta' not in checkpoint or 'optimizer' not in checkpoint:
            raise CheckpointError(f"'{filename}' holds weights only; set load_from to start a new run from them.")
        meta, length = checkpoint['meta'], len(self.train_dataloader)
        self._adopt_seed(meta['seed'])
        self.train_loop._epoch, self.train_loop._iter = meta['epoch'], meta['epoch'] * length
        if meta['steps_per_epoch'] != length:
            self.logger.warning(
                f'The checkpoint comes from epochs of {meta["steps_per_epoch"]} steps, this run has {length} (other data, '
                'batch or number of processes): it continues at the same epoch, and is not the same run.'
            )
        self.message_hub.load_state_dict(message_hub_state(checkpoint['message_hub']))
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        self._load_optimizer(checkpoint['optimizer'], filename)
        for scheduler, state in zip(self.param_schedulers or [], checkpoint['param_schedulers'], strict=False):
            scheduler.load_state_dict(state)
            if getattr(scheduler, 'per_step', False):
                scheduler.go_to(self.train_loop._iter)
        if len(checkpoint['random_states']) == self.world_size:
            set_random_state(checkpoint['random_states'][self.rank])
        self.logger.info(f'Resumed from {filename}: {self.epoch} epochs, {self.iter} iterations done.')

    def _adopt_seed(self, seed: int) -> None:
        """A resumed run goes on with the seed that it began with (it matters where the config leaves the seed open)."""
        given = self._randomness_cfg.get('seed')
        if seed == self.seed:
            return
        if given is not None:
            self.logger.warning(f'The checkpoint was trained with seed {seed}; the seed {given} given now is ignored.')
        self._randomness_cfg = {**self._randomness_cfg, 'seed': seed}
        self.set_randomness(**self._randomness_cfg)
        if hasattr(self.train_dataloader.dataset, 'seed'):
            self.train_dataloader.dataset.seed = seed
        if hasattr(self.train_dataloader.sampler, 'seed'):
            self.train_dataloader.sampler.seed = seed

    def _load_optimizer(self, state: dict, filename: str) -> None:
        """Buffers from the checkpoint, hyper-parameters from the config (a changed weight decay takes effect)."""
        kept = (
            {'params', 'lr'} if self.param_schedulers else {'params'}
        )  # a schedule of mmengine goes on from the last lr
        groups = [{k: v for k, v in group.items() if k not in kept} for group in self.optim_wrapper.param_groups]
        try:
            self.optim_wrapper.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"The optimizer state of '{filename}' does not fit {type(self.optim_wrapper.optimizer).__name__}: {error}"
                '. Resume with the optimizer of the first run, or set load_from to start a new one from its weights.'
            ) from error
        for group, settings in zip(self.optim_wrapper.param_groups, groups, strict=True):
            changed = {k: (group.get(k), v) for k, v in settings.items() if group.get(k) != v}
            if changed:
                self.logger.warning(f'Resumed with other optimizer settings (checkpoint, now): {changed}.')
            group.update(settings)

    # Logs

    def dump_config(self) -> None:
        if is_main_process():
            self.cfg.dump(str(Path(self.work_dir) / 'config.py'))

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
