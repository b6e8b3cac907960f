"""Dry run of a config, without data, GPU or memory: the model is built on the meta device."""

import os
from collections import Counter
from typing import Any

from mmengine.config import Config
from rich.console import Console
from rich.syntax import Syntax
from rich.table import Column, Table
from torch import nn
from torch.nn.parameter import is_lazy

from mmkernel.engine.allowed_keys import ConfigError, default_of, find_component
from mmkernel.engine.allowed_values import hooks_of
from mmkernel.engine.clocks import check_clocks, check_last_batch
from mmkernel.engine.cluster_hook import ClusterHook
from mmkernel.engine.config import check_virtual_batch
from mmkernel.engine.config_shape import check_needed
from mmkernel.engine.layer_decay import describe_layers
from mmkernel.engine.learning_rates import describe_scaling, describe_weights, effective_batch
from mmkernel.models.image_sizes import check_sizes, evaluation_size
from mmkernel.planning.bytes_per_rank import bytes_per_rank, held_by_a_rank, readable
from mmkernel.planning.fitting import memory_tables
from mmkernel.planning.problems import Problem, problems_here, problems_of_data
from mmkernel.planning.rehearsal import build_on_meta, refused, rehearse, try_weights
from mmkernel.planning.set_sizes import evaluation_sizes, number_of_images
from mmkernel.registry import HOOKS
from mmkernel.zoo.config_text import config_text

# Tensors of a parameter's size that the optimizer keeps; others keep one.
OPTIMIZER_STATES = dict.fromkeys(('Adam', 'AdamW', 'NAdam', 'RAdam', 'Adamax', 'LAMB'), 2)


class Plan:
    """The numbers of a run. ``images`` is None if neither config nor disk tells it."""

    def __init__(self, cfg: Config, model: nn.Module, world_size: int) -> None:
        loader, wrapper = cfg.train_dataloader, cfg.optim_wrapper
        widths = (getattr(getattr(model, part, None), 'out_dim', 0) for part in ('neck', 'backbone'))
        views = loader.dataset.get('views', {}).values()
        count = sum(view.get('count', 1) for view in views if view is not None) or 1
        self.width = int(next(filter(None, widths), 0))  # q
        self.views = count if getattr(model, 'online_views', None) is None else len(model.online_views)  # V
        self.batch, self.world_size = loader.batch_size, world_size  # B, per process, and W
        self.accumulation = wrapper.get('accumulative_counts', 1)
        self.micro_batches = check_virtual_batch(cfg, world_size)  # that make the batch of one step
        self.batches = loader.get('num_batch_per_epoch')  # of one process in an epoch, where the config says how many
        self.images, self.epochs = number_of_images(cfg), cfg.train_cfg.get('max_epochs')
        self.parameters, self.optimizer = count_parameters(model), wrapper.optimizer.type
        with refused('model.neck'):
            self.held, self.trained, self.hidden = held_by_a_rank(model, world_size, bool(cfg.get('fsdp')))
        self.weights = describe_weights(model, self.width)  # of squared distances, in both conventions
        with refused('optim_wrapper'):
            decay = wrapper.get('layer_decay')
            self.layers = [] if decay is None else [('layer decay', describe_layers(model, decay))]

    @property
    def total(self) -> int:
        return sum(self.parameters.values())

    @property
    def rows(self) -> int:
        """N: rows of one gathered view."""
        return self.batch * self.world_size * self.micro_batches

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps of an epoch; the sampler repeats images so that all ranks have equally many."""
        if self.images is None and self.batches is None:
            return None
        return (self.batches or -(-self.images // self.world_size) // self.batch) // self.micro_batches

    def memory(self) -> dict[str, int]:
        """See ``bytes_per_rank``."""
        states = OPTIMIZER_STATES.get(self.optimizer, 1)
        own = self.batch * self.micro_batches
        return bytes_per_rank(self.held, self.trained, states, self.views, own, self.rows, self.width, self.hidden)

    def problems(self) -> list[Problem]:
        """Errors that a run would have on this machine for want of data; another machine may have more."""
        return problems_of_data(self.images, self.batch, self.world_size, self.micro_batches, self.batches)


def dry_run(
    cfg: Config, world_size: int | None = None, file: Any = None, count: bool = False, memory: int | None = None
) -> str:
    """Print and return the resolved config, parameters, batch, learning rate, steps and memory of a run.

    ``world_size``: processes to reckon with (default: WORLD_SIZE of the environment, or 1). ``count``: a step is counted, and
    compared with ``memory`` bytes of a device, where they are given. ConfigError: see ``make_plan``.
    """
    check_needed({**cfg, 'work_dir': '.'})
    processes = world_size or int(os.environ.get('WORLD_SIZE', 1))
    plan = make_plan(cfg, processes)
    console = Console(record=True, width=120, file=file)
    console.print(Syntax(config_text(cfg.to_dict()), 'python', background_color='default', word_wrap=True))
    counts = {name: f'{count:,}' for name, count in [*plan.parameters.items(), ('total', plan.total)]}
    run = _numbers_of_the_run(cfg, plan, here=world_size is None)
    for title, rows in (
        ('Parameters of the model', counts.items()), ('Run', run), *memory_tables(cfg, plan, count, memory)
    ):  # fmt: skip
        table = Table(
            *(Column(overflow='fold') for _ in range(2)), title=title, title_justify='left', show_header=False
        )
        for name, value in rows:
            table.add_row(name, readable(value) if isinstance(value, int) else value)
        console.print(table)
    return console.export_text()


def make_plan(cfg: Config, world_size: int) -> Plan:
    """The plan of a run, after a rehearsal of its first step; ConfigError for what training would refuse."""
    model = build_on_meta(cfg)
    plan = Plan(cfg, model, world_size)
    plan.start = try_weights(cfg, model)
    check_hooks(cfg, model, plan)
    if not plan.problems():
        images = max((plan.images or 10**6) // world_size, 1)
        rehearse(cfg, model, plan.batch, plan.rows, plan.steps_per_epoch, images, plan.micro_batches > 1)
    kinds = [find_component(hook['type'], where)[0] for where, hook in hooks_of(cfg).items() if hook]
    if (size := evaluation_size(cfg)) and any(getattr(kind, 'evaluates', False) for kind in kinds):
        with refused('evaluation'):
            check_sizes(getattr(model, 'backbone', model), [size])
    return plan


def check_hooks(cfg: Config, model: nn.Module, plan: Plan) -> None:
    """ConfigError where ``check_clocks`` would end the run, or where a hook does not take its settings."""
    hooks = []
    for where, hook in hooks_of(cfg).items():
        if hook:
            with refused(where):
                hooks.append(HOOKS.build({k: v for k, v in hook.items() if k != 'priority'}))
    try:
        check_clocks(model, hooks, plan.rows, plan.world_size)
        if plan.images and any(isinstance(hook, ClusterHook) for hook in hooks):
            model.head.prepare(plan.images)  # what the hook does before the run
        if plan.images and not plan.batches:
            images = -(-plan.images // plan.world_size)
            check_last_batch(model, images, plan.batch, cfg.train_dataloader.get('drop_last', False))
    except ValueError as error:
        with_what = f'{plan.world_size} process(es) of {plan.rows // plan.world_size} images'
        raise ConfigError(f'{error} (Reckoned with {with_what}; --gpus takes another number.)') from None


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Trainable and frozen parameters of each part that has any; shared ones count where they come first."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if not is_lazy(parameter):
            counts[name.partition('.')[0] if '.' in name else 'other'] += parameter.numel()
    return dict(counts)


def _numbers_of_the_run(cfg: Config, plan: Plan, here: bool) -> list[tuple[str, str]]:
    images = effective_batch(plan.batch, plan.world_size, plan.accumulation * plan.micro_batches)
    several = f'{plan.accumulation} accumulated'
    if plan.micro_batches > 1:
        several = f'{plan.micro_batches} micro-batches, one exact (virtual) batch'
    optimizer, steps = cfg.optim_wrapper.optimizer, plan.steps_per_epoch
    lr = optimizer.get('lr', default_of(optimizer, 'optim_wrapper.optimizer', 'lr'))
    length = 'unknown: the data was not found and the config has no num_samples'
    if steps is not None:
        length = f'{steps:,} batches of {plan.rows:,}' + (
            f'; {steps * plan.epochs:,} in {plan.epochs} epochs' if plan.epochs else ''
        )
    rows = [
        ('effective batch', f'{images} = {plan.batch} x {plan.world_size} processes x {several}'),
        ('learning rate', describe_scaling(cfg.get('lr_scaling'), lr, images)),
        *plan.layers,
        *plan.weights,
        ('images', 'unknown' if plan.images is None else f'{plan.images:,}'),
        ('steps per epoch', length),
        *evaluation_sizes(cfg),
        *([('load_from', plan.start)] if plan.start else ()),
        *(('problem', str(problem)) for problem in [*plan.problems(), *(problems_here(cfg) if here else ())]),
    ]
    return rows
