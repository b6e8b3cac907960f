"""Save, load and resume a run: resumed after any optimizer step, it equals an uninterrupted one bit for bit."""

import itertools
import time
from pathlib import Path
from typing import Any

from mmkernel.distributed import on_first_process
from mmkernel.engine.checkpoint import checkpoint_bytes, checkpoint_meta, go_on_from, start_from, to_plain
from mmkernel.engine.checkpoint_parts import check_optimizer, restoring
from mmkernel.engine.config_file import origin
from mmkernel.engine.finite import refuse_non_finite
from mmkernel.engine.folder_lock import SILENT
from mmkernel.engine.hooks import attempt, dataset_of, unwrap
from mmkernel.engine.process_state import process_states, restore_process
from mmkernel.engine.resume_check import OtherRunError, compare_runs, resolved, versions
from mmkernel.engine.run_folder import RunFolder
from mmkernel.engine.schedule import moved_by, state_of
from mmkernel.engine.sharded_state import naming_shards, shards_go, states_with_shards, take_shards
from mmkernel.writing import NotWrittenError
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.files import CheckpointError, read_checkpoint, write_checkpoint

POSITION = ('last_step', '_global_step', '_last_value', 'base_values')  # of a schedule of mmengine


class Persistence:
    """What a Runner writes and reads: its work folder (``run_folder.py``), and checkpoints of plain tensors and values."""

    def take_folder(self) -> None:
        """Make the work folder this run's own, or raise on every process, before anything is written into it."""
        silent = (self.cfg.get('env_cfg') or {}).get('silent_after', SILENT)
        self.folder = RunFolder(self.work_dir, silent)
        self._settings, self._differences = resolved(self.cfg.to_dict()), []

        def compare(path: Path, meta: dict) -> None:
            anyway = bool(self.cfg.get('resume_anyway'))
            self._differences = compare_runs(meta, self._settings, self.world_size, str(path), anyway)

        def take() -> tuple[Path | None, str]:
            path = self.folder.take(self._resume, self._load_from, compare)
            now = time.strftime('%Y%m%d_%H%M%S')
            names = (f'{now}_{n}' if n else now for n in itertools.count())  # several may begin here within one second
            free = next(log for name in names if not (log := Path(self.work_dir) / name).exists())
            free.mkdir(parents=True)
            return path, free.name

        self.folder.resumed, self.timestamp = on_first_process(take)

    def save_checkpoint(self, out_dir: str, filename: str, meta: dict | None = None) -> None:
        """Write all that the next step depends on; every rank must call it. RuntimeError inside an accumulation window."""
        if getattr(self.train_loop, 'batch', None) and not attempt(self.optim_wrapper)[0]:
            text = f"'{filename}' would be written inside an accumulation window"
            raise RuntimeError(f'{text}. Save when optim_wrapper.stepped is True.')
        getattr(self.optim_wrapper, 'check', bool)()  # every process asks, and all raise together
        path = Path(out_dir).resolve() / filename
        states = process_states(unwrap(self.model)) | states_with_shards(self, path)
        on_first_process(lambda: self._write(path, meta or {}, states))
        self.folder.wrote(path)

    def _write(self, path: Path, more: dict, states: dict[str, Any]) -> None:
        """This runs at the end of an epoch, before the counter moves, or inside one."""
        batch = getattr(self.train_loop, 'batch', None)  # of this epoch, used; None: all, and the epoch's end is done
        epoch = self.epoch + (batch is None)
        count = self.iter if batch is None else epoch * len(self.train_dataloader) + batch
        checkpoint = self.state({'epoch': epoch, 'batch': batch or 0, 'iter': count, **more}) | dict(
            param_schedulers=[state_of(schedule) for schedule in self.param_schedulers or []],
            message_hub=self.message_hub.state_dict(),
            **states,
        )
        with naming_shards(path, states, self.folder.check) as last:
            self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
            refuse_non_finite(self, checkpoint)
            checkpoint = to_plain(checkpoint)
            self.folder.make_room(path)
            try:
                with shards_go(path):
                    write_checkpoint(checkpoint, path, last)
            except OSError as error:
                text = f"'{path}' cannot be written ({error.strerror or error}). {self.folder.way_back()}"
                raise NotWrittenError(text) from error

    def state(self, about: dict) -> dict:
        """Model and optimizer as they are now; ``about``: what else their ``meta`` says, the position at least."""
        meta = dict(
            steps_per_epoch=len(self.train_dataloader), run=self.folder.run, time=time.time(), seed=self.seed,
            world_size=self.world_size, images=len(dataset_of(self)), optimizer=self._optimizer_name(),
            config=config_text(self.cfg.to_dict()), settings=self._settings,  # as values: what a resume compares
            versions=versions(),
        ) | about  # fmt: skip
        return dict(meta=meta, state_dict=unwrap(self.model).state_dict(), optimizer=self.optim_wrapper.state_dict())

    def _optimizer_name(self) -> str:
        return type(getattr(self.optim_wrapper, 'optimizer', self.optim_wrapper)).__name__

    def load_checkpoint(self, filename: str, strict: bool = True, start: bool = False) -> dict:
        """``start``: of a new run, which takes other files than those of its own kind, see ``start_from``."""
        checkpoint = read_checkpoint(filename)
        with restoring('optimizer or shards', filename):
            checkpoint = take_shards(checkpoint, unwrap(self.model), self.optim_wrapper, filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        report = (start_from if start else go_on_from)(unwrap(self.model), checkpoint, str(filename), strict)
        self.logger.info(f'Loaded {filename}: {report}.')
        return checkpoint

    def load_or_resume(self) -> None:
        needed = checkpoint_bytes(unwrap(self.model), self.optim_wrapper.param_groups)
        if text := on_first_process(lambda: self.folder.try_room(needed)):
            self.logger.warning(text)
        if self.folder.resumed is not None:
            self.resume(str(self.folder.resumed))
        elif self._load_from is not None:
            self.load_checkpoint(str(self._load_from), start=True)
        elif self._resume:
            self.logger.info(f'--resume: no checkpoint in {self.work_dir} yet, training starts from the beginning.')
        if self._differences:
            self.logger.warning('\n  '.join(['Resumed with differences (checkpoint -> now):', *self._differences]))
        asked = ('resume', 'resume_anyway', 'load_from') if self._resume else ('resume', 'resume_anyway')
        text = origin(self.cfg.filename) + config_text({k: v for k, v in self.cfg.to_dict().items() if k not in asked})
        on_first_process(lambda: self.folder.write_config(text))  # without the options of this start

    def resume(self, filename: str) -> None:
        """Continue exactly where ``filename`` was written: weights, optimizer, schedules, histories, random state."""
        meta, length, images = checkpoint_meta(filename), len(self.train_dataloader), len(dataset_of(self))
        checkpoint = self.load_checkpoint(filename)
        if meta['optimizer'] != self._optimizer_name():
            raise CheckpointError(
                f"'{filename}' was trained with {meta['optimizer']}, this config has {self._optimizer_name()}, and their "
                'states do not fit: set load_from to start a new run from its weights.'
            )
        if meta.get('images', images) != images:  # the config may be the same and the data not
            text = f"'{filename}' was trained on {meta['images']} images, now there are {images}"
            if not self.cfg.get('resume_anyway'):
                raise OtherRunError(f'{text}: it is another run. If it is meant: --resume-anyway (resume_anyway=True).')
            self.logger.warning(f'{text}.')
        self._adopt_seed(meta['seed'])
        self._go_to(meta, length)
        with restoring('message_hub', filename):
            self.message_hub.load_state_dict(checkpoint['message_hub'])
        with restoring('optimizer', filename):
            self._load_optimizer(checkpoint['optimizer'])
        with restoring('param_schedulers', filename):
            for scheduler, state in zip(self.param_schedulers or [], checkpoint['param_schedulers'], strict=False):
                self._load_schedule(scheduler, state)
        with restoring('random_states', filename):
            self.train_loop.random_state = restore_process(self, unwrap(self.model), checkpoint, filename)
        used = f', and {self.train_loop.batch} of {length} batches of the next' if meta.get('batch') else ''
        self.logger.info(f'Resumed from {filename}: {self.epoch} of {self.max_epochs} epochs done{used}.')

    def _go_to(self, meta: dict, length: int) -> None:
        """The position of the checkpoint, or about the same part of its epoch if epochs have another ``length`` now."""
        loop, epoch, batch, then = self.train_loop, meta['epoch'], meta.get('batch', 0), meta['steps_per_epoch']
        if batch and not hasattr(loop, 'batch'):
            raise CheckpointError(f'{type(loop).__name__} cannot go on inside an epoch: resume from an epoch_<n>.pth.')
        window = getattr(self.optim_wrapper, '_accumulative_counts', 1)
        if batch and (then != length or batch % window):
            # after the last step of an epoch only its end is left, however many batches that step had
            batch = length if batch == then else batch * length // then // window * window
        loop._epoch, loop._iter = epoch, epoch * length + batch
        if hasattr(loop, 'batch'):
            loop._batch = batch
        if then != length:
            self.logger.warning(
                f'The checkpoint comes from epochs of {then} steps, this run has {length}: it continues at the same epoch, and '
                'is not the same run.'
            )

    def _adopt_seed(self, seed: int) -> None:
        """Use the seed of the checkpoint, which the config may leave open."""
        if seed == self.seed:
            return
        if self.given_seed is not None:
            self.logger.warning(f'The checkpoint was trained with seed {seed}; the seed {self.given_seed} is ignored.')
        self.set_randomness(seed, self.diff_rank_seed, self.deterministic)
        for part in (dataset_of(self), self.train_dataloader.sampler):
            if hasattr(part, 'seed'):
                part.seed = seed

    def _load_optimizer(self, state: dict) -> None:
        """Buffers from the checkpoint, hyper-parameters from the config (a changed weight decay takes effect)."""
        # schedules of mmengine continue from the last value
        kept = {'params', *moved_by(self.param_schedulers or [])}
        groups = [{k: v for k, v in group.items() if k not in kept} for group in self.optim_wrapper.param_groups]
        self.optim_wrapper.load_state_dict(state)
        check_optimizer(self.optim_wrapper.optimizer)
        for group, settings in zip(self.optim_wrapper.param_groups, groups, strict=True):
            group.update(settings)

    def _load_schedule(self, scheduler: Any, state: dict) -> None:
        """Our schedules follow the config from the current step; mmengine's continue as in the checkpoint, with a warning."""
        config = to_plain({key: value for key, value in state_of(scheduler).items() if key not in POSITION})
        scheduler.load_state_dict(state)
        if getattr(scheduler, 'per_step', False):
            return scheduler.go_to(self.train_loop._iter)
        kept = {key: (state[key], value) for key, value in config.items() if key in state and state[key] != value}
        if kept and not self.cfg.get('resume_anyway'):  # then it is among the differences
            self.logger.warning(
                f'{type(scheduler).__name__} continues as in the checkpoint (checkpoint, config): {kept}.'
            )
