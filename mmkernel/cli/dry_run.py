"""What a config would do, without data, GPU or memory: the model is built on the meta device."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table
from torch import nn
from torch.nn.parameter import is_lazy

from mmkernel.cli.rehearsal import build_on_meta, refused, rehearse
from mmkernel.engine.check import ConfigError, find_component
from mmkernel.engine.clocks import check_clocks, check_last_batch
from mmkernel.engine.cluster_hook import ClusterHook
from mmkernel.engine.config import check_virtual_batch
from mmkernel.engine.learning_rates import describe_scaling, describe_weights, effective_batch
from mmkernel.registry import DATASETS, HOOKS
from mmkernel.zoo.config_text import ordered

# Tensors of a parameter's size that the optimizer keeps.
OPTIMIZER_STATES = {'Adam': 2, 'AdamW': 2, 'NAdam': 2, 'RAdam': 2, 'Adamax': 2, 'LAMB': 2}


@dataclass
class Plan:
    """The numbers of a run. ``images`` is None if neither the config nor the disk says it."""

    parameters: dict[str, int]
    width: int  # q
    views: int  # V
    batch: int  # B, per process
    world_size: int  # W
    accumulation: int
    images: int | None
    epochs: int | None
    bytes_per_weight: int = 4
    optimizer_states: int = 1
    micro_batches: int = 1  # that make the batch of one step
    batches: int | None = None  # of one process in an epoch, where the config says how many
    weights: list[tuple[str, str]] = field(default_factory=list)  # of squared distances, in both conventions

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def rows(self) -> int:
        """N: rows of one gathered view."""
        return self.batch * self.world_size * self.micro_batches

    @property
    def steps_per_epoch(self) -> int | None:
        """Batches of one process in an epoch; the sampler repeats images so that all ranks have equally many."""
        if self.images is None and self.batches is None:
            return None
        return (self.batches or -(-self.images // self.world_size) // self.batch) // self.micro_batches

    def memory(self) -> dict[str, int]:
        """Estimated bytes on one device; activations of the backbone are not in it."""
        size, weights = self.bytes_per_weight, self.total * self.bytes_per_weight
        own = self.batch * self.micro_batches
        return {
            'weights': weights,
            'gradients': weights,
            'optimizer': weights * self.optimizer_states,
            f'embeddings, V x B x q = {self.views} x {own} x {self.width}': (self.views * own * self.width * size),
            f'gathered embeddings of one view, N x q = {self.rows} x {self.width}': self.rows * self.width * size,
            f'Gram matrix of one view, N x N = {self.rows} x {self.rows}': self.rows**2 * size,
        }


def dry_run(cfg: Config, world_size: int | None = None, file: Any = None) -> str:
    """Print and return the resolved config, parameters, batch, learning rate, steps and estimated memory of a run.

    ``world_size``: processes to reckon with (default: WORLD_SIZE of the environment, or 1). ConfigError for what training
    would refuse before its first step.
    """
    plan = make_plan(cfg, world_size or int(os.environ.get('WORLD_SIZE', 1)))
    console = Console(record=True, width=120, file=file)
    console.print(Syntax(ordered(cfg).pretty_text, 'python', background_color='default', word_wrap=True))
    console.print(_parameter_table(plan))
    console.print(_run_table(cfg, plan, here=world_size is None))
    console.print(_memory_table(plan))
    return console.export_text()


def make_plan(cfg: Config, world_size: int) -> Plan:
    model = build_on_meta(cfg)
    loader, wrapper = cfg.train_dataloader, cfg.optim_wrapper
    plan = Plan(
        parameters=count_parameters(model),
        width=_width(getattr(model, 'neck', None)) or _width(getattr(model, 'backbone', None)),
        views=_number_of_views(model, loader.dataset),
        batch=loader.batch_size,
        world_size=world_size,
        accumulation=wrapper.get('accumulative_counts', 1),
        images=number_of_images(cfg),
        epochs=cfg.train_cfg.get('max_epochs'),
        optimizer_states=OPTIMIZER_STATES.get(wrapper.optimizer.type, 1),
        micro_batches=check_virtual_batch(cfg, world_size),
        batches=loader.get('num_batch_per_epoch'),
    )
    check_hooks(cfg, model, plan)
    if not _problems(plan):
        images = max((plan.images or 10**6) // world_size, 1)
        rehearse(cfg, model, plan.batch, plan.rows, plan.steps_per_epoch, images)
    plan.weights = describe_weights(model, plan.width)
    return plan


def _width(part: Any) -> int:
    return int(getattr(part, 'out_dim', 0))


def check_hooks(cfg: Config, model: nn.Module, plan: Plan) -> None:
    """ConfigError where ``check_clocks`` would end the run, or where a hook does not take its settings."""
    given = {f'default_hooks.{name}': hook for name, hook in (cfg.get('default_hooks') or {}).items()}
    given |= {f'custom_hooks.{i}': hook for i, hook in enumerate(cfg.get('custom_hooks') or [])}
    hooks = []
    for where, hook in given.items():
        if hook:
            with refused(where):
                hooks.append(HOOKS.build({k: v for k, v in hook.items() if k != 'priority'}))
    try:
        check_clocks(model, hooks, plan.rows, plan.world_size)
        for hook in hooks:  # what a ClusterHook does before the run
            if isinstance(hook, ClusterHook) and plan.images:
                model.head.prepare(plan.images)
        if plan.images and not plan.batches:
            images = -(-plan.images // plan.world_size)
            check_last_batch(model, images, plan.batch, cfg.train_dataloader.get('drop_last', False))
    except ValueError as error:
        raise ConfigError(
            f'{error} (Reckoned with {plan.world_size} process(es) of {plan.rows // plan.world_size} images; --gpus takes '
            'another number.)'
        ) from None


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Trainable and frozen parameters of each part that has any; shared ones count where they come first."""
    seen: set[int] = set()
    counts = {}
    for name, part in [*model.named_children(), ('other', model)]:
        own = {id(p): p.numel() for p in part.parameters() if id(p) not in seen and not is_lazy(p)}
        seen |= set(own)
        if own:
            counts[name] = sum(own.values())
    return counts


def _number_of_views(model: nn.Module, dataset: Mapping) -> int:
    online = getattr(model, 'online_views', None)
    if online is not None:
        return len(online)
    views = [view for view in dataset.get('views', {}).values() if view is not None]
    return sum(view.get('count', 1) for view in views) or 1


def number_of_images(cfg: Config) -> int | None:
    """``num_samples`` of the config, else what the source has when complete, else what is on disk, else None."""
    if cfg.get('num_samples'):
        return int(cfg.num_samples)
    source = cfg.train_dataloader.dataset.get('source', cfg.train_dataloader.dataset)
    kind, _ = find_component(source.type, 'train_dataloader.dataset.source')
    expected = getattr(kind, 'expected_length', None)
    length = expected(**{k: v for k, v in source.items() if k != 'type'}) if expected else None
    if length is not None:
        return length
    try:
        return len(DATASETS.build(source))
    except (OSError, RuntimeError, ValueError):
        return None


def readable(size: float) -> str:
    """Bytes with a binary unit."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if size < 1024:
            return f'{size:.0f} {unit}' if unit == 'B' else f'{size:.1f} {unit}'
        size /= 1024
    return f'{size:.1f} TiB'


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify='left', show_header=bool(columns), expand=False)
    for i, column in enumerate(columns or ('', '')):
        table.add_column(column, justify='right' if i and columns else 'left', overflow='fold')
    return table


def _parameter_table(plan: Plan) -> Table:
    table = _table('Model', 'part', 'parameters')
    for name, count in plan.parameters.items():
        table.add_row(name, f'{count:,}')
    table.add_row('total', f'{plan.total:,}', style='bold')
    return table


def _run_table(cfg: Config, plan: Plan, here: bool) -> Table:
    images = effective_batch(plan.batch, plan.world_size, plan.accumulation * plan.micro_batches)
    table = _table('Run')
    several = f'{plan.accumulation} accumulated'
    if plan.micro_batches > 1:
        several = f'{plan.micro_batches} micro-batches, one exact (virtual) batch'
    table.add_row('effective batch', f'{images} = {plan.batch} x {plan.world_size} processes x {several}')
    optimizer = cfg.optim_wrapper.optimizer
    taken = inspect.signature(find_component(optimizer.type, 'optim_wrapper.optimizer')[0]).parameters
    lr = optimizer.get('lr', getattr(taken.get('lr'), 'default', None))
    table.add_row('learning rate', describe_scaling(cfg.get('lr_scaling'), lr, images))
    for name, text in plan.weights:
        table.add_row(name, text)
    steps = plan.steps_per_epoch
    if steps is None:
        table.add_row('steps per epoch', 'unknown: the data was not found and the config has no num_samples')
    else:
        if plan.images is not None:
            table.add_row('images', f'{plan.images:,}')
        table.add_row('steps per epoch', f'{steps:,}')
        if plan.epochs:
            table.add_row('steps in all', f'{steps * plan.epochs:,} in {plan.epochs} epochs')
    for problem in _problems(plan):
        table.add_row('problem', problem)
    if here and cfg.optim_wrapper.get('precision') == 'float16' and not torch.cuda.is_available():
        table.add_row(
            'problem', "precision='float16' needs a GPU, and here is none (--gpus N: for a machine that has N)"
        )
    return table


def _problems(plan: Plan) -> list[str]:
    """Of the amount of data: what a run here would end with, though another machine may have more."""
    found = []
    if plan.steps_per_epoch == 0:
        found.append(f'{plan.images} images are less than one batch per process')
    if plan.images is not None and (plan.batches or 0) * plan.batch * plan.world_size > plan.images:
        found.append(f'num_batch_per_epoch={plan.batches} asks for more than {plan.images} images')
    return found


def _memory_table(plan: Plan) -> Table:
    table = _table('Estimated memory per device, float32, without activations', 'what', 'size')
    for name, size in plan.memory().items():
        table.add_row(name, readable(size))
    table.add_row('sum', readable(sum(plan.memory().values())), style='bold')
    return table
