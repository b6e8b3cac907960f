"""Saving, loading and resuming: a resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner as _Runner

import mmkernel
from mmkernel.engine.checkpoint import (
    CheckpointError,
    latest_checkpoint,
    load_weights,
    read_checkpoint,
    weights_of,
    write_checkpoint,
)
from mmkernel.engine.hooks import refuse_non_finite, unwrap
from mmkernel.engine.plain import message_hub_state, plain_message_hub, to_plain
from mmkernel.engine.random_state import gather_random_states, set_random_state


class ResumableRunner(_Runner):
    """mmengine's Runner with checkpoints of plain values (``checkpoint.py``), exact at the ends of epochs."""

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
        refuse_non_finite(self, checkpoint)
        write_checkpoint(to_plain(checkpoint), Path(out_dir) / filename)

    def _meta(self) -> dict:
        """Position (this runs at the end of an epoch, before the counter moves), seed, config and versions."""
        return dict(
            epoch=self.epoch + 1,
            iter=self.iter,
            time=time.time(),
            seed=self.seed,
            world_size=self.world_size,
            optimizer=self._optimizer_name(),
            steps_per_epoch=len(self.train_dataloader),
            config=self.message_hub.get_info('cfg', ''),  # the resolved text; the hook of mmengine puts it there
            versions=dict(mmkernel=mmkernel.__version__, torch=torch.__version__, mmengine=mmengine.__version__),
        )

    def _optimizer_name(self) -> str:
        return type(getattr(self.optim_wrapper, 'optimizer', self.optim_wrapper)).__name__

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
        if meta['optimizer'] != self._optimizer_name():
            raise CheckpointError(
                f"'{filename}' was trained with {meta['optimizer']}, this config has {self._optimizer_name()}: their "
                'states do not fit. Resume with the first, or set load_from to start a new run from its weights.'
            )
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
        self.logger.info(f'Resumed from {filename}: {self.epoch} of {self.max_epochs} epochs done.')

    def _adopt_seed(self, seed: int) -> None:
        """A resumed run goes on with the seed that it began with (it matters where the config leaves the seed open)."""
        given = self._randomness_cfg.get('seed')
        if seed == self.seed:
            return
        if given is not None:
            self.logger.warning(f'The checkpoint was trained with seed {seed}; the seed {given} given now is ignored.')
        self._randomness_cfg = {**self._randomness_cfg, 'seed': seed}
        self.set_randomness(**self._randomness_cfg)
        dataset = getattr(self.train_dataloader.dataset, '_dataset', self.train_dataloader.dataset)
        for part in (dataset, self.train_dataloader.sampler):
            if hasattr(part, 'seed'):
                part.seed = seed

    def _load_optimizer(self, state: dict, filename: str) -> None:
        """Buffers from the checkpoint, hyper-parameters from the config (a changed weight decay takes effect)."""
        kept = (
            {'params', 'lr'} if self.param_schedulers else {'params'}
        )  # a schedule of mmengine goes on from the last lr
        groups = [{k: v for k, v in group.items() if k not in kept} for group in self.optim_wrapper.param_groups]
        try:
            self.optim_wrapper.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"The optimizer state of '{filename}' does not fit this model: {error}.") from error
        for group, settings in zip(self.optim_wrapper.param_groups, groups, strict=True):
            changed = {k: (group.get(k), v) for k, v in settings.items() if group.get(k) != v}
            if changed:
                self.logger.warning(f'Resumed with other optimizer settings (checkpoint, now): {changed}.')
            group.update(settings)
