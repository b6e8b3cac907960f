"""Options that no signature names: of parameter groups, schedules and hooks."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from numbers import Real
from typing import Any

from mmengine.runner import Priority, get_priority

from mmkernel.checks import check_numbers
from mmkernel.engine.check import ConfigError, check_names, expected_registry, find_component, is_typed, walk
from mmkernel.engine.numerics import check_numerics
from mmkernel.engine.optim_wrapper import PRECISIONS, check_clipping
from mmkernel.engine.parameter_rates import KEYS
from mmkernel.engine.scaling import lr_factor
from mmkernel.engine.schedule import FIXED
from mmkernel.engine.wrapping import check_wrapping
from mmkernel.registry import HOOKS, PARAM_SCHEDULERS, accepted_keywords

HOOK_NAMES = (
    'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint', 'seed', 'guard', 'commit', 'monitor',
    'doctor', 'knn', 'probe', 'accuracy', 'momentum', 'queue', 'freeze', 'cluster', 'weights', 'best',
)  # fmt: skip
MULTIPLIERS = (
    'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
)  # fmt: skip
SWITCHES = ('sync_bn', 'find_unused_parameters', 'resume_anyway', 'activation_checkpointing')
CHOICES = {
    'env_cfg.mp_cfg.mp_start_method': ('fork', 'spawn', 'forkserver'),
    'log_level': ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET'),
}
# Multipliers of a decay that LARS leaves out unless it scales all parameters.
OF_VECTORS = ('vector_decay_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult')


@contextmanager
def as_config_error() -> Iterator[None]:
    """What a check of values raises is a mistake in the config."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def check_options(cfg: Mapping) -> None:
    """ConfigError for an option of a hook, a parameter group or a schedule that nothing reads, or that means nothing."""
    for name in ('train_dataloader', 'evaluation'):
        given = cfg.get(name) or {}
        with as_config_error():
            check_numbers(name, whole=True, none=True, batch_size=given.get('batch_size'))
            check_numbers(name, whole=True, zero=True, none=True, num_workers=given.get('num_workers'))
    _check_run(cfg)
    check_hooks(cfg)
    check_optimizer(cfg.get('optim_wrapper') or {})
    for where, node in walk(
        {key: cfg[key] for key in ('param_scheduler', 'default_hooks', 'custom_hooks') if key in cfg}
    ):
        if is_typed(node) and expected_registry(where) is PARAM_SCHEDULERS:
            _check_schedule(where, node)
        if is_typed(node) and expected_registry(where) is HOOKS and 'priority' in node:
            _check_priority(where, node['priority'])


def _check_run(cfg: Mapping) -> None:
    """ConfigError for a switch that is neither on nor off, and for words and numbers that no run can start with."""
    for name in SWITCHES:
        if not isinstance(cfg.get(name, False), (bool, type(None))):
            raise ConfigError(f'{name} = {cfg[name]!r}; expected True or False.')
    with as_config_error():
        check_numerics(cfg)
        check_wrapping(cfg)
        lr_factor(cfg.get('lr_scaling'), 1)
        check_numbers(whole=True, none=True, num_samples=cfg.get('num_samples'))
        timeout = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
        check_numbers('env_cfg.dist_cfg', none=True, timeout=timeout)
        check_numbers('randomness', whole=True, zero=True, none=True, seed=(cfg.get('randomness') or {}).get('seed'))
    for place, known in CHOICES.items():
        value = reduce(lambda node, key: (node or {}).get(key), place.split('.'), cfg)
        if isinstance(value, str) and value not in known:
            raise ConfigError(f'{place} = {value!r}; expected one of {", ".join(known)}.')


def _check_priority(where: str, priority: Any) -> None:
    try:
        get_priority(priority)
    except (KeyError, TypeError, ValueError):
        names = ', '.join(p.name for p in Priority)
        raise ConfigError(
            f'{where}.priority = {priority!r}; expected one of {names}, or a number from 0 to 100.'
        ) from None


def check_hooks(cfg: Mapping) -> None:
    """ConfigError for a hook without ``type``, or for an unknown one that is taken out: the name is mistyped."""
    named, more = cfg.get('default_hooks') or {}, cfg.get('custom_hooks') or []
    for name, hook in named.items():
        near = difflib.get_close_matches(name, [n for n in (*HOOK_NAMES, *named) if n != name], n=1, cutoff=0.7)
        hint = f"Did you mean '{near[0]}'?" if near else f'Hooks there: {", ".join(named)}.'
        if isinstance(hook, Mapping) and not hook.get('type'):
            raise ConfigError(f"default_hooks.{name} has no type, and no hook '{name}' is inherited. {hint}")
        if hook is None and near and name not in HOOK_NAMES:
            raise ConfigError(f"default_hooks.{name} = None takes out nothing: there is no hook '{name}'. {hint}")
    if cfg.get('param_scheduler') and named.get('param_scheduler', True) is None:
        raise ConfigError(
            'default_hooks.param_scheduler = None: nothing would move the schedules of param_scheduler. For a constant learning '
            'rate set param_scheduler=None; a hook of your own that steps them stands under the name param_scheduler.'
        )
    for i, hook in enumerate(more):
        if isinstance(hook, Mapping) and not hook.get('type'):
            raise ConfigError(f"custom_hooks.{i} has no type: {dict(hook)}. Write dict(type='...').")


def check_optimizer(wrapper: Mapping) -> None:
    """ConfigError for options of parameter groups that nothing reads: a mistyped one, or one of another optimizer."""
    if (clipping := wrapper.get('clip_grad')) is not None:
        with as_config_error():
            if not isinstance(clipping, Mapping):
                raise TypeError(f'optim_wrapper.clip_grad = {clipping!r}; expected a dict, such as dict(max_norm=1.0).')
            check_clipping(wrapper['clip_grad'])
    if 'precision' in wrapper and wrapper['precision'] not in PRECISIONS:
        raise ConfigError(
            f'optim_wrapper.precision = {wrapper["precision"]!r}; expected one of {", ".join(PRECISIONS)}.'
        )
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
