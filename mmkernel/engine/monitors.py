"""Hooks that monitor embeddings, or show views, and do not change the run; the statistics are those of ``mmkernel.evaluation``."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmkernel.checks import check_numbers
from mmkernel.datasets import PatchView, ViewDataset
from mmkernel.distributed import max_over_ranks, world_size
from mmkernel.engine.hooks import dataset_of, look_alone, unwrap
from mmkernel.engine.schedule import warmup_end
from mmkernel.evaluation import COLLAPSED, YARDSTICK, diagnose_cloud, embedding_statistics, run_kernel, sample_cloud
from mmkernel.kernels import Kernel
from mmkernel.models import Embeddings
from mmkernel.registry import HOOKS


@HOOKS.register_module()
class EmbeddingMonitorHook(Hook):
    """Every ``interval`` batches of an epoch, ``embedding_statistics`` of the batch under ``embedding/<word>``.

    Looks at the embeddings that the head is given anyway (train mode, first online view; alignment with the second, or
    with the first target of another view), so it costs no forward pass. What the objective logs itself under the same word
    is not logged twice. Embeddings that cannot be measured (NaN, one image, width 1) are left out, as is a model without
    ``observers``. ``mmd2`` is under the run's own kernel where the head has one, else LegendreKernel((1, 40, 40)) of Zheng et
    al., ICLR 2023. Training is the same with and without, bit for bit.

    Args:
        interval: batches between looks; an epoch shorter than that gets one, at its end, like the log.
        max_rows: images looked at, over all ranks; the effective rank is below it.
    """

    def __init__(self, interval: int = 50, max_rows: int = 1024) -> None:
        check_numbers('EmbeddingMonitorHook', whole=True, interval=interval)
        check_numbers('EmbeddingMonitorHook', whole=True, least=2, max_rows=max_rows)
        self.interval, self.max_rows = interval, max_rows
        self.seen: tuple[Tensor, Tensor | None] | None = None
        self.kernel: Kernel = YARDSTICK

    def before_train(self, runner: Any) -> None:
        model = unwrap(runner.model)
        if not hasattr(model, 'observers'):
            return runner.logger.info(f'EmbeddingMonitorHook: {type(model).__name__} shows no embeddings to look at.')
        self.kernel = (own := run_kernel(model)) or YARDSTICK
        name = f'the kernel of the run, {own}' if own else f'{YARDSTICK}, as the objective has no kernel'
        runner.logger.info(f'embedding/mmd2: under {name}.')

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        model, length = unwrap(runner.model), len(runner.train_dataloader)
        due = self.every_n_inner_iters(batch_idx, self.interval) or batch_idx + 1 == length <= self.interval
        if due and hasattr(model, 'observers'):
            model.observers.append(self.look)

    def look(self, embeddings: Embeddings) -> None:
        """Keep the first online view and a partner: another online view (comparable between methods), else a target."""
        others = [
            embeddings.target[j] for j, view in enumerate(embeddings.target_views) if view != embeddings.online_views[0]
        ]
        partner = [*embeddings.online[1:2], *others, None][0]
        self.seen = (
            embeddings.as_rows(embeddings.online[0]),
            partner if partner is None else embeddings.as_rows(partner),
        )

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model = unwrap(runner.model)
        if self.look in getattr(model, 'observers', ()):
            model.observers.remove(self.look)
        if self.seen is None:
            return
        (z, partner), self.seen = self.seen, None
        found = embedding_statistics(z, partner, self.kernel, self.max_rows) if measurable(z, self.max_rows) else {}
        for word, value in found.items():
            # one word, one value on a line: the objective's own is that of this very step; NaN is what is not known
            if word not in (outputs or ()) and not math.isnan(value):
                runner.message_hub.update_scalar(f'train/embedding/{word}', value)


@HOOKS.register_module()
class DoctorHook(Hook):
    """A warning in the log when ``diagnose`` finds the embedding collapsed, once per change.

    Every ``interval`` epochs and after the last one, process 0 looks at ``images`` training images and two views of each, in
    eval mode. As every fresh encoder is nearly collapsed, it is silent in the fraction ``begin`` of the run, in the first
    ``steps`` iterations, and as long as the learning rate warms up. Models without a neck, or with one that lies on several
    ranks, and patches of images, whose embeddings are not those of images, are left alone.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 5, begin: float = 0.25, images: int = 128, steps: int = 100) -> None:
        check_numbers('DoctorHook', whole=True, interval=interval)
        check_numbers('DoctorHook', whole=True, zero=True, steps=steps)
        check_numbers('DoctorHook', whole=True, least=8, images=images)
        check_numbers('DoctorHook', zero=True, most=1.0, begin=begin)  # a fraction of the run
        self.interval, self.begin, self.images, self.steps = interval, begin, images, steps
        self.state: str | None = None

    def after_train_epoch(self, runner: Any) -> None:
        epoch, model, data = runner.epoch + 1, unwrap(runner.model), dataset_of(runner)
        due = epoch > self.begin * runner.max_epochs and (epoch % self.interval == 0 or epoch == runner.max_epochs)
        due = due and runner.iter >= max(self.steps, warmup_end(runner.param_schedulers, runner.train_dataloader))
        neck = getattr(model, 'neck', None)
        shown = hasattr(model, 'extract') and neck is not None and not getattr(neck, 'spread', False)
        shown = shown and isinstance(data, ViewDataset) and isinstance(runner.cfg.train_dataloader, Mapping)
        if due and shown and not any(isinstance(view, PatchView) for view in data.views.values()):
            look_alone(model, lambda: self._look(runner, model, data.source))

    def _look(self, runner: Any, model: Any, source: Any) -> None:
        try:
            cloud = sample_cloud(model, runner.cfg, self.images, source)
        except (ValueError, RuntimeError, OSError) as error:
            # an image that training has not read yet: no reason to end the run
            return runner.logger.warning(f'DoctorHook could not look after epoch {runner.epoch + 1}: {error}')
        if min(cloud.z.shape) < 2 or not all(torch.isfinite(part).all() for part in (cloud.z, *(cloud.views or ()))):
            return  # nothing to diagnose; NonFiniteGuardHook reports what is not finite
        found = diagnose_cloud(cloud, model)
        if found.state == COLLAPSED and self.state != COLLAPSED:
            runner.logger.warning(f'Epoch {runner.epoch + 1}: the embedding has collapsed: {found.verdict}')
        elif self.state == COLLAPSED and found.state != COLLAPSED:
            runner.logger.info(f'The embedding is no longer collapsed: effective rank {found.statistics.rank:.1f}.')
        self.state = found.state

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        if self.state is not None:
            checkpoint['doctor'] = self.state

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """A resumed run does not warn again of what was said."""
        self.state = checkpoint.get('doctor') if runner._resume else None


@HOOKS.register_module()
class ViewSheetHook(Hook):
    """``views.png`` in the log folder: views of the first ``images`` of the run's first batch, as the model gets them.

    They are taken from the output of ``model.data_preprocessor``, whatever made them, a worker or the device, and their
    normalisation is undone. Nothing is loaded or drawn at random for it, and a GPU is not waited for. Process 0 alone writes.
    Models whose preprocessor has no ``mean`` and ``std`` are left alone.
    """

    writes = ('views.png',)
    cells = 96  # at most: 49 patches of an image leave room for one image

    def __init__(self, images: int = 8) -> None:
        check_numbers('ViewSheetHook', whole=True, images=images)
        self.images, self.handle, self.copied = images, None, None

    def before_train(self, runner: Any) -> None:
        preprocessor = getattr(unwrap(runner.model), 'data_preprocessor', None)
        if runner.rank == 0 and hasattr(preprocessor, 'mean') and hasattr(preprocessor, 'std'):
            self.handle = preprocessor.register_forward_hook(self.copy)

    def copy(self, preprocessor: nn.Module, _: Any, batch: dict) -> None:
        """Of the first batch alone: (uint8 views on the host, the event after which they are there)."""
        self.handle.remove()
        views = [view.detach() for view in batch['inputs'][: self.cells]]
        rows = min(self.images, max(self.cells // len(views), 1))
        bytes_of = [(x[:rows] * preprocessor.std + preprocessor.mean).round().clamp(0, 255).byte() for x in views]
        event = torch.cuda.Event() if views[0].is_cuda else None
        self.copied = [x.to('cpu', non_blocking=True) for x in bytes_of], event
        if event is not None:
            event.record(torch.cuda.current_stream(views[0].device))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        if self.copied is None or not (self.copied[1] is None or self.copied[1].query()):
            return
        from mmkernel.visualization.view_sheet import view_sheet  # the package imports matplotlib: a second

        (views, _), self.copied = self.copied, None
        names = getattr(dataset_of(runner), 'view_names', ['view'] * len(views))[: len(views)]
        path = Path(runner.log_dir) / 'views.png'
        view_sheet(path, views, names)
        runner.logger.info(f'The first images as the model sees them: {path.name}.')


def measurable(z: Tensor, rows: int) -> bool:
    """Whether the first ``rows`` rows of all ranks are a cloud of finite points; every rank gets the same answer."""
    finite = torch.isfinite(z[:rows]).all()
    return len(z) * world_size() > 1 and z.shape[1] > 1 and not max_over_ranks((~finite).float())


def log_values(runner: Any, prefix: str, values: Mapping[str, float], text: str) -> None:
    """Values that belong to the end of an epoch: message hub, every backend (JSON lines, CSV, ...) and the console."""
    named = {f'{prefix}/{word}': value for word, value in values.items()}
    runner.message_hub.update_scalars({f'monitor/{name}': value for name, value in named.items()})
    runner.visualizer.add_scalars({'epoch': runner.epoch + 1, **named}, step=runner.iter)
    runner.logger.info(text)
