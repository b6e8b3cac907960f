"""Options that no signature names: of parameter groups, schedules and hooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from numbers import Real
from typing import Any

from mmengine.runner import Priority, get_priority

from mmkernel.checks import check_numbers, did_you_mean
from mmkernel.engine.check import ConfigError, check_names, find_component, is_typed, walk
from mmkernel.engine.numerics import check_numerics
from mmkernel.engine.optim_wrapper import PRECISIONS, check_clipping
from mmkernel.engine.parameter_rates import KEYS
from mmkernel.engine.scaling import lr_factor
from mmkernel.engine.schedule import FIXED
from mmkernel.engine.wrapping import check_wrapping
from mmkernel.registry import accepted_keywords

# The hooks of every run that does not change or leave them out by name.
DEFAULT_HOOKS = dict(
    runtime_info='RuntimeInfoHook', timer='IterTimerHook', sampler_seed='DistSamplerSeedHook', logger='LoggerHook',
    param_scheduler='ParamSchedulerHook', checkpoint='CheckpointHook',
)  # fmt: skip
MULTIPLIERS = (
    'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
)  # fmt: skip
# What may stand at a place, beside None.
CHOICES = dict.fromkeys(
    ('sync_bn', 'find_unused_parameters', 'resume_anyway', 'activation_checkpointing'), (True, False)
) | {
    'optim_wrapper.precision': PRECISIONS,
    'env_cfg.mp_cfg.mp_start_method': ('fork', 'spawn', 'forkserver'),
    'log_level': ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET', *range(0, 60, 10)),
}
# Whole numbers at a place, beside None, and what else check_numbers allows there.
NUMBERS = {
    'train_cfg.max_epochs': {}, 'train_cfg.virtual_batch': {}, 'num_samples': {}, 'train_dataloader.batch_size': {},
    'evaluation.batch_size': {},
    'train_dataloader.num_workers': dict(zero=True), 'evaluation.num_workers': dict(zero=True),
    'randomness.seed': dict(zero=True), 'env_cfg.dist_cfg.timeout': dict(whole=False),
}  # fmt: skip
# Multipliers of a decay that LARS leaves out unless it scales all parameters.
OF_VECTORS = ('vector_decay_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult')


@contextmanager
def as_config_error(where: str = '') -> Iterator[None]:
    """What a check of values raises is a mistake in the config, at the place ``where``."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'{where}{error}') from None


def check_options(cfg: Mapping) -> None:
    """ConfigError for an option of a run, a hook, a parameter group or a schedule that nothing reads, or that means nothing."""
    for place, known in CHOICES.items():
        if (value := at(cfg, place)) is not None and value not in known:
            words = ' or '.join(', '.join(map(str, known)).rsplit(', ', 1))
            raise ConfigError(f'{place} = {value!r}; expected {words}.')
    with as_config_error():
        check_numerics(cfg)
        check_wrapping(cfg)
        lr_factor(cfg.get('lr_scaling'), 1)
        for place, allowed in NUMBERS.items():
            check_numbers(**{'whole': True, 'none': True, **allowed, place: at(cfg, place)})
    check_hooks(cfg)
    check_optimizer(cfg.get('optim_wrapper') or {})
    for where, node in walk({'param_scheduler': cfg.get('param_scheduler')}):
        if is_typed(node):
            _check_schedule(where, node)


def at(cfg: Any, place: str) -> Any:
    """The value at 'a.b.c'; None where there is none."""
    return reduce(lambda node, key: node.get(key) if isinstance(node, Mapping) else None, place.split('.'), cfg)


def check_hooks(cfg: Mapping) -> None:
    """ConfigError for a hook without ``type`` or of no priority, or for an unknown one that is taken out: it is mistyped."""
    named = cfg.get('default_hooks') or {}
    if cfg.get('param_scheduler') and named.get('param_scheduler', True) is None:
        raise ConfigError(
            'default_hooks.param_scheduler = None: nothing would move the schedules of param_scheduler. For a constant learning '
            'rate set param_scheduler=None; a hook of your own that steps them stands under the name param_scheduler.'
        )
    there = [name for name in {**DEFAULT_HOOKS, **named} if named.get(name, True) is not None]
    given = {f'default_hooks.{name}': hook for name, hook in named.items()}
    given |= {f'custom_hooks.{i}': hook for i, hook in enumerate(cfg.get('custom_hooks') or [])}
    for where, hook in given.items():
        name = where.rpartition('.')[2]
        near = did_you_mean(name, [each for each in there if each != name], cutoff=0.7)
        if hook is None and near and name not in DEFAULT_HOOKS:
            raise ConfigError(f"{where} = None takes out nothing: there is no hook '{name}'. {near}")
        if isinstance(hook, Mapping):
            if not hook.get('type'):
                hint = near or f'Hooks there: {", ".join(there)}.'
                raise ConfigError(f"{where} has no type (dict(type='...')), and no hook '{name}' is inherited. {hint}")
            known = f'expected one of {", ".join(Priority.__members__)}, or a number from 0 to 100'
            with as_config_error(f'{where}.priority = {hook.get("priority")!r}; {known}: '):
                get_priority(hook.get('priority', 0))


def check_optimizer(wrapper: Mapping) -> None:
    """ConfigError for options of parameter groups that nothing reads: a mistyped one, or one of another optimizer."""
    if (clipping := wrapper.get('clip_grad')) is not None:
        with as_config_error():
            if not isinstance(clipping, Mapping):
                raise TypeError(f'optim_wrapper.clip_grad = {clipping!r}; expected a dict, such as dict(max_norm=1.0).')
            check_clipping(clipping)
    rules, optimizer = wrapper.get('paramwise_cfg') or {}, wrapper.get('optimizer') or {}
    if not is_typed(optimizer):
        return
    if not isinstance(optimizer.get('lr', 0.0), Real):
        raise ConfigError(f'optim_wrapper.optimizer.lr = {optimizer["lr"]!r}; expected one number, such as 0.1.')
    where, constructor = 'optim_wrapper.paramwise_cfg', wrapper.get('constructor') or 'DefaultOptimWrapperConstructor'
    find_component(constructor, 'optim_wrapper.constructor')
    _check_group_keys(where, rules, constructor, optimizer)
    decays = [key for key in OF_VECTORS if rules.get(key)]
    if decays and optimizer['type'].endswith('LARS') and not optimizer.get('scale_all'):
        raise ConfigError(
            f'{where}.{decays[0]} = {rules[decays[0]]} has no effect: LARS never decays biases and norm parameters. Set '
            'optim_wrapper.optimizer.scale_all=True, or leave it out.'
        )
    for path, node in walk(rules, where):
        with as_config_error():
            check_numbers(path, zero=True, **{key: value for key, value in node.items() if key.endswith('_mult')})


def _check_group_keys(where: str, rules: Mapping, constructor: str, optimizer: Mapping) -> None:
    """ConfigError for a key that neither the constructor nor the optimizer reads."""
    names, _ = accepted_keywords(find_component(optimizer['type'], 'optim_wrapper.optimizer')[0])
    options = (*FIXED, *(name for name in names if name not in ('self', 'params')))
    if constructor == 'DefaultOptimWrapperConstructor':
        check_names(rules, ('custom_keys', *MULTIPLIERS, 'bypass_duplicate'), where)
        custom = rules.get('custom_keys') or {}
        check_names(custom, list(custom), f'{where}.custom_keys')
        for key, given in custom.items():
            check_names(given, ('lr_mult', 'decay_mult', *options), f'{where}.custom_keys.{key}')
    elif constructor == 'VectorRateConstructor':
        check_names(rules, KEYS, where)
    elif constructor == 'PartRateConstructor':
        for part, given in rules.items():
            check_names(given, options, f'{where}.{part}')


def _check_schedule(where: str, node: Mapping) -> None:
    """ConfigError for a number of a schedule that is infinite, or negative where it is a rate; ``end`` may be infinite."""
    signed = not node['type'].endswith(('LR', 'Momentum'))
    for key, value in node.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        if numbers and key not in ('end', 'last_step'):
            with as_config_error():
                check_numbers(where, zero=True, signed=signed, **{key: numbers})
