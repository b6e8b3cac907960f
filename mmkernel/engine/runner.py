"""One run: build what a config names, train it in a loop of epochs, and call the hooks."""

import copy
import os
from collections.abc import Mapping
from typing import Any

import mmengine.runner
from mmengine.config import Config
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import set_random_seed
from torch import nn
from torch.utils.data import DataLoader

from mmkernel.datasets import build_dataloader, check_dataloader
from mmkernel.engine import learning_rates as rates
from mmkernel.engine.allowed_keys import ConfigError, as_config_error
from mmkernel.engine.allowed_values import DEFAULT_HOOKS, hooks_of
from mmkernel.engine.clocks import check_clocks
from mmkernel.engine.config_shape import check_needed, check_run
from mmkernel.engine.first_look import look_at_training
from mmkernel.engine.forks import training
from mmkernel.engine.history import kept_values
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.launch import start_process
from mmkernel.engine.logs import close_logs, last_lines, open_logs
from mmkernel.engine.persistence import Persistence
from mmkernel.engine.refusals import FolderAsFound, building, leaving_as_found, naming_part
from mmkernel.engine.run_folder import make_folder
from mmkernel.engine.schedule import build_schedules
from mmkernel.engine.wrapping import place_views, send_weights, wrap_model
from mmkernel.models import build_model
from mmkernel.registry import LOOPS, RUNNERS


@RUNNERS.register_module()
class Runner(Persistence):
    """Trains one model from one config: ``Runner.from_cfg(cfg).train()``.

    What hooks read and call: ``model, iter, epoch, max_iters, max_epochs, optim_wrapper, param_schedulers, train_dataloader,
    train_loop, hooks, message_hub, log_processor, visualizer, logger, work_dir, log_dir, timestamp, experiment_name, cfg,
    seed, rank, world_size, distributed, register_hook, call_hook, save_checkpoint``, as in mmengine's Runner. There is no
    validation loop: hooks evaluate after epochs. Errors: ConfigError for a config that asks for one, or counts iterations.
    """

    val_loop = test_loop = _trained = began = None  # began: the iteration at which this start is ready

    def __init__(self, cfg: Config | Mapping) -> None:
        self.cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(copy.deepcopy(dict(cfg)))
        check_run(self.cfg)
        check_needed(self.cfg)
        parts = self._parts = copy.deepcopy(self.cfg)  # builders take keys out
        self._resume, self._load_from = bool(self.cfg.get('resume')), self.cfg.get('load_from')
        self.launcher, self.work_dir = self.cfg.get('launcher', 'none'), os.path.abspath(self.cfg['work_dir'])
        self.distributed = self.launcher != 'none'
        self.as_found = FolderAsFound(self.work_dir)
        make_folder(self.work_dir)
        with leaving_as_found(self):
            self.setup_env(parts.get('env_cfg') or {})
            self.take_folder()
            self.set_randomness(**(parts.get('randomness') or dict(seed=None)))
            with building(self.cfg, 'visualizer'):
                open_logs(self)
            self._train_loop = parts['train_cfg']
            self.optim_wrapper, self.param_schedulers = parts['optim_wrapper'], parts.get('param_scheduler')
            with building(self.cfg, 'model'):
                model = build_model(parts) if isinstance(parts['model'], Mapping) else parts['model']
                self.model = wrap_model(model, self.cfg, self.distributed)
            self.model_name = type(unwrap(self.model)).__name__
            self._hooks: list[Hook] = []
            named = {name: dict(type=kind) for name, kind in DEFAULT_HOOKS.items()} | (parts.get('default_hooks') or {})
            for where, hook in hooks_of({**parts, 'default_hooks': named}).items():
                with building(self.cfg, where):
                    _ = hook is None or self.register_hook(hook)
            self.logger.debug(f'Hooks in their order: {", ".join(type(hook).__name__ for hook in self.hooks)}.')

    @classmethod
    def from_cfg(cls, cfg: Config | Mapping) -> 'Runner':
        return cls(cfg)

    epoch = property(lambda self: self.train_loop.epoch)
    iter = property(lambda self: self.train_loop.iter)
    max_epochs = property(lambda self: self.train_loop.max_epochs)
    max_iters = property(lambda self: self.train_loop.max_iters)
    train_dataloader = property(lambda self: self.train_loop.dataloader)
    hooks = property(lambda self: self._hooks)
    micro_batches = property(lambda self: getattr(self.train_loop, 'micro_batches', 1))  # of one step
    register_hook = mmengine.runner.Runner.register_hook

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        for hook in self.hooks:
            if hasattr(hook, fn_name):
                getattr(hook, fn_name)(self, **kwargs)

    @property
    def train_loop(self) -> Any:
        if isinstance(self._train_loop, Mapping):
            self._train_loop = self.build_train_loop(self._train_loop)
        return self._train_loop

    @property
    def rows(self) -> int:
        """Images that meet in one loss: those of a batch, or of all micro-batches of a virtual one, of all processes."""
        loader = self.train_dataloader
        batch = loader.batch_size or loader.batch_sampler.batch_size
        return rates.effective_batch(batch, self.world_size, self.micro_batches)

    def setup_env(self, env_cfg: Mapping) -> None:
        with as_config_error():
            start_process(self.cfg)
        mmengine.runner.Runner.setup_env(self, {key: value for key, value in env_cfg.items() if value is not None})
        self.rank, self.world_size = get_dist_info()

    def set_randomness(self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        self.given_seed, self.diff_rank_seed, self.deterministic = seed, diff_rank_seed, deterministic
        own = set_random_seed(seed, deterministic, diff_rank_seed)
        self.seed = own - self.rank if diff_rank_seed else own  # one in all processes, for data and clusters

    @staticmethod
    def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        loader = build_dataloader(dataloader, seed, diff_rank_seed)
        check_dataloader(loader)
        return loader

    def build_train_loop(self, loop: Mapping) -> Any:
        """``EpochLoop``, or a loop class of the user's own, registered in LOOPS."""
        settings = {key: value for key, value in loop.items() if key not in ('type', 'by_epoch')}
        kind = loop.get('type', 'EpochBasedTrainLoop')
        kind = LOOPS.get(kind) if isinstance(kind, str) else kind
        with building(self.cfg, 'train_dataloader'):
            loader = self.build_dataloader(self._parts['train_dataloader'], self.seed)
            place_views(getattr(loader.dataset, '_dataset', loader.dataset), unwrap(self.model))
        with building(self.cfg, 'train_cfg'):
            return kind(runner=self, dataloader=loader, **settings)

    def build_optim_wrapper(self, wrapper: Any) -> OptimWrapper:
        if not isinstance(wrapper, OptimWrapper) and 'optimizer' not in wrapper:
            raise ConfigError("optim_wrapper has no optimizer; expected optimizer=dict(type='LARS', lr=...).")
        with building(self.cfg, 'optim_wrapper'):
            wrapper = rates.built_wrapper(wrapper, self.model, self.micro_batches > 1)
        if hasattr(wrapper, 'epoch_length'):
            wrapper.epoch_length = len(self.train_dataloader)
        return wrapper

    def scale_lr(self) -> None:
        """Multiply the written learning rates by lr_scaling's factor. The config keeps the written ones."""
        images = self.rows * getattr(self.optim_wrapper, '_accumulative_counts', 1)
        text = rates.scale(self.optim_wrapper.param_groups, self.cfg.get('lr_scaling'), images)
        self.logger.info(f'Effective batch {images}, learning rate {text}.')

    def train(self) -> nn.Module:
        """From the first epoch, or the one after a checkpoint, to the last; returns the model."""
        try:
            if self._trained:
                raise RuntimeError('This run has been trained. Build another from its config: Runner.from_cfg(cfg).')
            self._trained = True
            with training(), leaving_as_found(self), naming_part(self):
                self._prepare()
                model = self.train_loop.run()
            getattr(self.optim_wrapper, 'check', bool)()  # whatever loop and hooks it had
            self.call_hook('after_run')
            last_lines(self)
            return model
        finally:
            self.call_hook('leave_run')
            if not isinstance(self._train_loop, Mapping):
                # end persistent workers now: the garbage collector may wait five seconds for each of them
                getattr(self.train_dataloader, 'micro_batches', self.train_dataloader)._iterator = None
            self._leave()

    def _prepare(self) -> None:
        model, loader = unwrap(self.model), self.train_dataloader
        with as_config_error():
            check_clocks(model, self.hooks, self.rows, self.world_size)
        look_at_training(self)
        for name, text in rates.describe_weights(model):
            self.logger.info(f'{name}: {text}.')
        self.message_hub.kept = kept_values(self.log_processor, self.hooks, len(loader))
        self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
        self.scale_lr()
        if (given := self.param_schedulers) is not None:
            with building(self.cfg, 'param_scheduler'):
                self.param_schedulers = build_schedules(given, self.optim_wrapper, self.max_epochs, len(loader))
        with building(self.cfg, 'model'):
            getattr(model, 'init_weights', bool)()
        send_weights(self.model)  # hooks may copy them
        self.call_hook('before_run')
        send_weights(self.model)  # hooks may change them
        self.load_or_resume()
        self.optim_wrapper.initialize_count_status(self.model, self.iter, self.max_iters)
        self.began = self.iter

    def _leave(self) -> None:
        """Give back what is open: the lock of the work folder, and log files."""
        if hasattr(self, 'folder'):
            self.folder.release()
        close_logs(self)
