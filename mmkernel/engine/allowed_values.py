"""The values that a config may have: options of the run, of hooks, of parameter groups and of schedules."""

from collections.abc import Mapping
from numbers import Real

from mmengine.runner import Priority, get_priority

from mmkernel.checks import check_numbers, did_you_mean
from mmkernel.datasets.training import VIEWS_ON
from mmkernel.engine.allowed_keys import (
    DEFAULT_CONSTRUCTOR,
    ConfigError,
    as_config_error,
    at,
    find_component,
    is_typed,
    walk,
)
from mmkernel.engine.config_shape import short
from mmkernel.engine.learning_rates import lr_factor
from mmkernel.engine.optim_wrapper import PRECISIONS, check_clipping
from mmkernel.engine.wrapping import check_wrapping

# The hooks of every run that does not change or leave them out by name.
DEFAULT_HOOKS = dict(
    runtime_info='RuntimeInfoHook', timer='IterTimerHook', sampler_seed='DistSamplerSeedHook', logger='LoggerHook',
    param_scheduler='ParamSchedulerHook', checkpoint='CheckpointHook',
)  # fmt: skip
# What may stand at a place, beside None.
CHOICES = {
    **dict.fromkeys(
        'sync_bn find_unused_parameters resume resume_anyway activation_checkpointing fsdp randomness.deterministic '
        'randomness.diff_rank_seed train_dataloader.drop_last train_dataloader.persistent_workers '
        'train_dataloader.pin_memory'.split(),
        (True, False),
    ),
    'tf32': (True, False, 'convolutions'),
    'optim_wrapper.precision': PRECISIONS,
    'train_dataloader.dataset.views_on': VIEWS_ON,
    'train_dataloader.dataset.exact': (True, False),
    'env_cfg.mp_cfg.mp_start_method': ('fork', 'spawn', 'forkserver'),
    'log_level': ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG', 'NOTSET', *range(0, 60, 10)),
}
# Whole numbers at a place, beside None, and what else check_numbers allows there.
NUMBERS = {
    'train_cfg.max_epochs': {}, 'train_cfg.virtual_batch': {}, 'num_samples': {}, 'train_dataloader.batch_size': {},
    'evaluation.batch_size': {}, 'train_dataloader.num_workers': dict(zero=True), 'evaluation.num_workers': dict(zero=True),
    'randomness.seed': dict(zero=True, most=2**32 - 1), 'env_cfg.dist_cfg.timeout': dict(whole=False),
    'train_dataloader.num_batch_per_epoch': {}, 'train_dataloader.prefetch_factor': {},
    'train_dataloader.timeout': dict(zero=True, whole=False), 'env_cfg.resource_limit': {},
    'env_cfg.silent_after': dict(whole=False, most=3600),
}  # fmt: skip
# Multipliers of a decay that LARS leaves out unless it scales all parameters.
OF_VECTORS = ('vector_decay_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult')


def check_options(cfg: Mapping) -> None:
    """ConfigError for an option of the run, a hook, a parameter group or a schedule that means nothing."""
    for place, known in CHOICES.items():
        if (value := at(cfg, place)) is not None and value not in known:
            words = ' or '.join(', '.join(map(str, known)).rsplit(', ', 1))
            raise ConfigError(f'{place} = {value!r}; expected {words}.')
    with as_config_error():
        check_wrapping(cfg)
        lr_factor(cfg.get('lr_scaling'), 1)
        for place, allowed in NUMBERS.items():
            check_numbers(**{'whole': True, 'none': True, **allowed, place: at(cfg, place)})
        _check_optimizer(cfg.get('optim_wrapper') or {})
        for where, node in walk(cfg.get('param_scheduler'), 'param_scheduler'):
            signed = not str(node.get('type')).endswith(('LR', 'Momentum'))
            numbers = {key: v for key, v in node.items() if type(v) in (int, float) and key not in ('end', 'last_step')}
            check_numbers(where, zero=True, signed=signed, **numbers)
            check_numbers(where, whole=True, none=True, **{key: node.get(key) for key in ('step_size', 'T_max')})
    precision = at(cfg, 'env_cfg.matmul_precision')
    if precision not in (None, 'highest'):  # an earlier version wrote 'highest': what the default is
        raise ConfigError(f'env_cfg.matmul_precision = {precision!r} is not read. Write tf32=True at the top level.')
    if at(cfg, 'randomness.deterministic') and at(cfg, 'env_cfg.cudnn_benchmark'):
        both = 'randomness.deterministic=True and env_cfg.cudnn_benchmark=True'
        raise ConfigError(
            f'{both} contradict each other. Leave cudnn_benchmark out (--cfg-options env_cfg.cudnn_benchmark=False).'
        )
    _check_hooks(cfg)


def _check_hooks(cfg: Mapping) -> None:
    """ConfigError for a hook without ``type`` or of no priority, or for an unknown one that is taken out: it is mistyped."""
    named = cfg.get('default_hooks') or {}
    if cfg.get('param_scheduler') and named.get('param_scheduler', True) is None:
        text = 'default_hooks.param_scheduler = None: nothing would move the schedules of param_scheduler.'
        raise ConfigError(f'{text} For a constant learning rate set param_scheduler=None.')
    there = [name for name in {**DEFAULT_HOOKS, **named} if named.get(name, True) is not None]
    for where, hook in hooks_of(cfg).items():
        name = where.rpartition('.')[2]
        near = did_you_mean(name, [each for each in there if each != name], cutoff=0.7)
        if hook is None and near and name not in DEFAULT_HOOKS:
            raise ConfigError(f"{where} = None takes out nothing: there is no hook '{name}'. {near}")
        if isinstance(hook, (str, Real, list, tuple)):
            raise ConfigError(f"{where} = {short(hook)}; expected dict(type='...'), or None to leave it out.")
        if isinstance(hook, Mapping):
            if not hook.get('type'):
                hint = near or f'Hooks there: {", ".join(there)}.'
                raise ConfigError(f"{where} has no type (dict(type='...')), and no hook '{name}' is inherited. {hint}")
            known = f'expected one of {", ".join(Priority.__members__)}, or a number from 0 to 100'
            with as_config_error(f'{where}.priority = {hook.get("priority")!r}; {known}: '):
                get_priority(hook.get('priority', 0))


def hooks_of(cfg: Mapping) -> dict[str, Mapping | None]:
    """{path: hook} of all hooks that a config names."""
    named = {f'default_hooks.{name}': hook for name, hook in (cfg.get('default_hooks') or {}).items()}
    return named | {f'custom_hooks.{i}': hook for i, hook in enumerate(cfg.get('custom_hooks') or [])}


def _check_optimizer(wrapper: Mapping) -> None:
    """An error for a value of the optimizer, of clipping or of a parameter group that means nothing or has no effect."""
    if (clipping := wrapper.get('clip_grad')) is not None:
        if not isinstance(clipping, Mapping):
            raise TypeError(f'optim_wrapper.clip_grad = {clipping!r}; expected a dict, such as dict(max_norm=1.0).')
        check_clipping(clipping)
    check_numbers('optim_wrapper', none=True, most=1.0, layer_decay=wrapper.get('layer_decay'))
    rules, optimizer = wrapper.get('paramwise_cfg') or {}, wrapper.get('optimizer') or {}
    if not is_typed(optimizer):
        return
    if not isinstance(optimizer.get('lr', 0.0), Real):
        raise TypeError(f'optim_wrapper.optimizer.lr = {optimizer["lr"]!r}; expected one number, such as 0.1.')
    check_numbers('optim_wrapper.optimizer', zero=True, lr=float(optimizer.get('lr', 0.0)))
    find_component(wrapper.get('constructor') or DEFAULT_CONSTRUCTOR, 'optim_wrapper.constructor')
    for key, given in (rules.get('custom_keys') or {}).items():
        if not isinstance(given, Mapping):
            raise TypeError(f'optim_wrapper.paramwise_cfg.custom_keys.{key} = {given!r}; expected a dict.')
    decay = next((key for key in OF_VECTORS if rules.get(key)), None)
    if decay and optimizer['type'].endswith('LARS') and not optimizer.get('scale_all'):
        text = f'optim_wrapper.paramwise_cfg.{decay} = {rules[decay]} has no effect: LARS never decays biases and norm parameters.'
        raise ValueError(f'{text} Leave it out, or --cfg-options optim_wrapper.optimizer.scale_all=True.')
    for path, node in walk(rules, 'optim_wrapper.paramwise_cfg'):
        check_numbers(path, zero=True, **{key: value for key, value in node.items() if key.endswith('_mult')})
