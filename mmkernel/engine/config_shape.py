"""What a config consists of: the parts that training needs, each of its kind, and none that only other runners have."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from mmkernel.engine.allowed_keys import ConfigError, at

# What other runners do and this one does not, and what stands for it.
NOT_HERE = {
    **dict.fromkeys(
        ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator'),
        "no loop validates or tests. Hooks look after epochs: default_hooks=dict(knn=dict(type='KNNMonitorHook')), or for a "
        "classifier accuracy=dict(type='AccuracyHook'), on the images of evaluation=dict(train=..., test=...).",
    ),
    'auto_scale_lr': "write lr_scaling='linear' (lr * effective batch / 256).",
    'efficient_conv_bn_eval': 'it makes a detector with frozen batch norm faster; leave it out.',
    # configs of mmcv's runner (mmselfsup before 1.0)
    **dict.fromkeys(('runner', 'total_epochs', 'workflow'), 'write train_cfg=dict(max_epochs=...).'),
    **dict.fromkeys(('optimizer_config', 'fp16'), 'write optim_wrapper=dict(clip_grad=..., precision=...).'),
    'lr_config': "write param_scheduler=dict(type='WarmupCosineLR', warmup_epochs=...), or mmengine's schedules.",
    'log_config': 'write default_hooks=dict(logger=dict(interval=...)).',
    'checkpoint_config': 'write default_hooks=dict(checkpoint=dict(interval=...)).',
    'resume_from': 'say --resume, or --resume FILE, on the command line.',
}

# What training needs; the last four in a dict, which may be built already.
NEEDED = (
    'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'work_dir', 'train_dataloader.dataset',
    'train_dataloader.batch_size', 'optim_wrapper.optimizer',
)  # fmt: skip
# Places of a dict, or of what is built of one; of a dict with a type; of a list of dicts.
PARTS = (
    'train_dataloader train_cfg optim_wrapper optim_wrapper.paramwise_cfg default_hooks randomness env_cfg env_cfg.mp_cfg '
    'env_cfg.dist_cfg log_processor visualizer custom_imports model_wrapper_cfg evaluation data_preprocessor'
).split()
TYPED = (
    'model optim_wrapper.optimizer train_dataloader.dataset train_dataloader.sampler train_dataloader.batch_sampler '
    'train_dataloader.collate_fn train_dataloader.dataset.source evaluation.train evaluation.test'
).split()
LISTS = ('custom_hooks', 'visualizer.vis_backends')  # the second may be a dict of named ones, too


def check_needed(cfg: Mapping) -> None:
    """ConfigError for a part that training lacks."""
    missing = [name for name in NEEDED if '.' not in name and not cfg.get(name)]
    for part, _, key in (
        name.partition('.') for name in NEEDED if '.' in name and name.partition('.')[0] not in missing
    ):
        instead = 'batch_sampler' if key == 'batch_size' else key
        if isinstance(cfg[part], Mapping) and cfg[part].get(key) is None and cfg[part].get(instead) is None:
            missing.append(f'{part}.{key}')
    if missing:
        raise ConfigError(f'The config has no {", ".join(missing)}, which training needs.')


def check_run(cfg: Mapping) -> None:
    """ConfigError for a key of other runners, for a part of another kind, or for a run that counts iterations."""
    cfg, plain = getattr(cfg, '_cfg_dict', cfg), (str, bytes, Real, list, tuple)
    for place in (*PARTS, *TYPED):
        part, expected = at(cfg, place), "dict(type='...', ...)" if place in TYPED else 'a dict'
        if isinstance(part, plain) or (place in TYPED and isinstance(part, Mapping) and not part.get('type')):
            raise ConfigError(f'{place} = {short(part)}; expected {expected}.')
    for place in LISTS:
        if not isinstance(part := at(cfg, place), (list, tuple, type(None), *([Mapping] if '.' in place else []))):
            raise ConfigError(f"{place} = {short(part)}; expected a list of dicts: [dict(type='...')].")
    schedules = cfg.get('param_scheduler')
    for where, part in _named('param_scheduler', schedules if isinstance(schedules, (list, tuple)) else [schedules]):
        if isinstance(part, plain) or (isinstance(part, Mapping) and not part.get('type')):
            raise ConfigError(f"{where} = {short(part)}; expected dict(type='WarmupCosineLR', ...), or a list of such.")
    for name, instead in NOT_HERE.items():
        if cfg.get(name) is not None:
            raise ConfigError(f'{name} is not read here: {instead}')
    loop = cfg.get('train_cfg') or {}
    if loop.get('by_epoch') is False or 'max_iters' in loop:
        raise ConfigError(
            'train_cfg: a run counts epochs here. Write train_cfg=dict(max_epochs=...); '
            'train_dataloader.num_batch_per_epoch makes epochs of any length, checkpoint=dict(every_steps=...) saves inside them.'
        )


def _named(name: str, parts: Sequence) -> list[tuple[str, Any]]:
    return [(f'{name}.{i}' if len(parts) > 1 else name, part) for i, part in enumerate(parts)]


def short(part: Any) -> str:
    """A part of a config, cut to the length of an error."""
    text = repr(dict(part) if isinstance(part, Mapping) else part)
    return text if len(text) <= 80 else f'{text[:77]}...'
