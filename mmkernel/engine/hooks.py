"""Hooks of every run: seeds and commits; and weights for a backbone before it."""

from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.hooks import RuntimeInfoHook as _RuntimeInfoHook
from mmengine.model import is_model_wrapper
from torch import nn
from torch.utils.data import Dataset

from mmkernel.distributed import on_first_process
from mmkernel.engine.encoder_shards import whole_encoders
from mmkernel.engine.process_state import random_state, seed_everything, set_random_state
from mmkernel.registry import HOOKS
from mmkernel.zoo import load_file


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside DistributedDataParallel, or the model."""
    return model.module if is_model_wrapper(model) else model


def dataset_of(runner: Any) -> Dataset:
    """The training set itself, without the wrapper that mmengine adds for num_batch_per_epoch."""
    dataset = runner.train_dataloader.dataset
    return getattr(dataset, '_dataset', dataset)


def attempt(wrapper: Any) -> tuple[bool, torch.Tensor | None]:
    """(the last batch closed its accumulation window, ``real`` of that step; None for wrappers of mmengine: it counts)."""
    return (wrapper.stepped, wrapper.real) if hasattr(wrapper, 'stepped') else (wrapper.should_update(), None)


def look_alone(model: nn.Module, look: Callable[[], Any]) -> Any:
    """``look()`` at ``model`` in process 0, and its result in every process. The random state of the run stays."""
    before = random_state()
    try:
        with whole_encoders(model):
            return on_first_process(look)
    finally:
        set_random_state(before)


@HOOKS.register_module()
class SeedHook(Hook):
    """Before each epoch, seed python, numpy and torch from (seed, epoch, rank): a resumed run draws what a straight one does."""

    priority = 'VERY_HIGH'

    def before_train_epoch(self, runner: Any) -> None:
        seed_everything(runner.seed, runner.epoch, runner.rank)
        if runner.train_dataloader.generator is not None:
            runner.train_dataloader.generator.manual_seed(torch.initial_seed())


@HOOKS.register_module()
class CommitHook(Hook):
    """After each attempt at a step ``model.commit(real)``: heads store what ``loss`` staged (queue rows) where it was real."""

    priority = 'NORMAL'

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        model, (stepped, real) = unwrap(runner.model), attempt(runner.optim_wrapper)
        if stepped and hasattr(model, 'commit'):
            model.commit(real=real)


@HOOKS.register_module(force=True)
class RuntimeInfoHook(_RuntimeInfoHook):
    """mmengine's, which gives the values of an iteration to the hub in one call."""

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        runner.message_hub.update_scalars({f'train/{key}': value for key, value in (outputs or {}).items()})


@HOOKS.register_module()
class BackboneWeightsHook(Hook):
    """Before a run, ``model.backbone`` gets its weights from ``checkpoint``; every tensor of it must be filled.

    ``checkpoint``: of a pretraining, here or in another code base (prefixes are found), or a plain state dict of the
    backbone. A momentum target starts from them; a resumed run overwrites them. ``adapt_input``: filters for RGB serve images
    of other channels, see ``mmkernel.zoo.load_file``.
    """

    priority = 'VERY_HIGH'

    def __init__(self, checkpoint: str, adapt_input: bool = False) -> None:
        self.checkpoint, self.adapt_input = checkpoint, adapt_input

    def before_run(self, runner: Any) -> None:
        model = unwrap(runner.model)
        report = load_file(model.backbone, self.checkpoint, adapt_input=self.adapt_input)
        getattr(getattr(model, 'target', None), 'start', bool)()
        runner.logger.info(f'Backbone from {self.checkpoint}: {report}.')
