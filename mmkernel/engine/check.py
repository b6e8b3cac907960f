"""Check every component that a config names against the registries, before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmengine.registry as roots
from mmengine.optim import _ParamScheduler
from mmengine.runner import IterBasedTrainLoop, LogProcessor, set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from mmkernel import registry as ours
from mmkernel.checks import did_you_mean
from mmkernel.datasets import PatchView, View
from mmkernel.datasets.views import Chain
from mmkernel.engine.loop import EpochLoop
from mmkernel.engine.optim_wrapper import PretrainOptimWrapper
from mmkernel.registry import Registry, accepted_keywords, check_keywords, unknown_type_message

# Keywords that mmengine's builders take out of a dict before the class sees it, or put in.
TAKEN_BY_BUILDERS = {
    'hook': {'priority'},
    'loop': {'by_epoch'},
    'optim_wrapper': {'constructor', 'paramwise_cfg', 'optimizer'},
    'parameter scheduler': {'convert_to_iter_based', 'by_epoch', 'begin', 'end'},
}
# Dicts without ``type`` whose consumer is known, and what may stand there beside its keywords.
UNTYPED = {
    'train_cfg': (EpochLoop, {'by_epoch'}),
    'train_dataloader': (DataLoader, {'num_batch_per_epoch'}),
    'optim_wrapper': (PretrainOptimWrapper, {'constructor', 'paramwise_cfg'}),
    'randomness': (set_random_seed, set()),
    'env_cfg.mp_cfg': (set_multi_processing, set()),
    'log_processor': (LogProcessor, set()),
    'visualizer': (Visualizer, set()),
}
# Dicts that several functions read: their keys.
READ_BY_NAME = {
    'env_cfg': ('cudnn_benchmark', 'matmul_precision', 'mp_cfg', 'dist_cfg', 'resource_limit'),
    'env_cfg.dist_cfg': ('timeout', 'backend'),
    'custom_imports': ('imports', 'allow_failed_imports'),
    'evaluation': ('train', 'test', 'transform', 'batch_size', 'num_workers', 'metric'),
}


# Which registry a component is looked for in first, by the key that holds it.
KINDS = {
    'model': ours.MODELS, 'data_preprocessor': ours.MODELS, 'kernel': ours.KERNELS, 'dataset': ours.DATASETS,
    'source': ours.DATASETS, 'evaluation': ours.DATASETS, 'views': ours.TRANSFORMS, 'transform': ours.TRANSFORMS,
    'ops': ours.TRANSFORMS, 'sampler': ours.DATA_SAMPLERS, 'batch_sampler': ours.DATA_SAMPLERS,
    'collate_fn': ours.FUNCTIONS, 'worker_init_fn': ours.FUNCTIONS, 'default_hooks': ours.HOOKS,
    'custom_hooks': ours.HOOKS, 'optim_wrapper': ours.OPTIM_WRAPPERS, 'optimizer': ours.OPTIMIZERS,
    'param_scheduler': ours.PARAM_SCHEDULERS, 'train_cfg': ours.LOOPS, 'visualizer': ours.VISUALIZERS,
}  # fmt: skip
# To these we add nothing; mmengine warns about a scope that lacks one.
for _key, _root in dict(
    vis_backends=roots.VISBACKENDS, log_processor=roots.LOG_PROCESSORS, model_wrapper_cfg=roots.MODEL_WRAPPERS,
    constructor=roots.OPTIM_WRAPPER_CONSTRUCTORS,
).items():  # fmt: skip
    KINDS[_key] = Registry(_root.name, parent=_root, scope='mmkernel')


class ConfigError(ValueError):
    """A config that cannot mean what it says."""


# What other runners do and this one does not, and what stands for it.
NOT_HERE = dict.fromkeys(
    ('val_dataloader', 'val_cfg', 'val_evaluator', 'test_dataloader', 'test_cfg', 'test_evaluator'),
    "no loop validates or tests. Hooks look after epochs: default_hooks=dict(knn=dict(type='KNNMonitorHook')), or for a "
    "classifier accuracy=dict(type='AccuracyHook'), on the images of evaluation=dict(train=..., test=...).",
) | dict(
    auto_scale_lr="write lr_scaling='linear' (lr * effective batch / 256).",
    efficient_conv_bn_eval='it makes a detector with frozen batch norm faster; leave it out.',
    # configs of mmcv's runner (mmselfsup before 1.0)
    **dict.fromkeys(('runner', 'total_epochs', 'workflow'), 'write train_cfg=dict(max_epochs=...).'),
    **dict.fromkeys(
        ('optimizer_config', 'fp16'), 'write optim_wrapper=dict(clip_grad=..., accumulative_counts=..., precision=...).'
    ),
    lr_config="write param_scheduler=dict(type='WarmupCosineLR', warmup_epochs=...), or mmengine's schedules.",
    log_config='write default_hooks=dict(logger=dict(interval=...)).',
    checkpoint_config='write default_hooks=dict(checkpoint=dict(interval=...)).',
    resume_from='say --resume, or --resume FILE, on the command line.',
)


def check_run(cfg: Mapping) -> None:
    """ConfigError for a key of other runners, for a part that training lacks, or for a run that counts iterations."""
    for name, instead in NOT_HERE.items():
        if cfg.get(name) is not None:
            raise ConfigError(f'{name} is not read here: {instead}')
    loop = cfg.get('train_cfg') or {}
    kind = loop.get('type')
    kind = find_component(kind, 'train_cfg')[0] if isinstance(kind, str) else kind
    if loop.get('by_epoch') is False or (isinstance(kind, type) and issubclass(kind, IterBasedTrainLoop)):
        raise ConfigError(
            'train_cfg: a run counts epochs here, for it resumes exactly at the ends of epochs only. Write train_cfg=dict('
            'max_epochs=...); train_dataloader.num_batch_per_epoch makes epochs of any length.'
        )


def check_component_tree(cfg: Mapping) -> None:
    """Raise ConfigError, with the path in the config, for an unknown ``type``, keyword or name anywhere below ``cfg``."""
    for where, node in walk(cfg):
        if consumer := None if where == 'optim_wrapper.clip_grad' else _consumer(node, where):
            _check_keywords(*consumer, node, where)
        elif where in READ_BY_NAME:
            check_names(node, READ_BY_NAME[where], where)
        check_no_nan(node, where)


def is_typed(node: Mapping) -> bool:
    return isinstance(node.get('type'), str)


def check_names(given: Mapping, known: Sequence[str], where: str) -> None:
    """ConfigError for a name that is not ``known``, with the nearest that is, or for what is no dict of names."""
    if not isinstance(given, Mapping):
        raise ConfigError(f'{where} = {given!r}; expected a dict.')
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"{where}: unknown key '{name}'. {hint} It takes: {', '.join(known)}.")


def check_no_nan(node: Mapping, where: str) -> None:
    """ConfigError for NaN: no option of a run means anything by it."""
    for key, value in node.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(v, float) and math.isnan(v) for v in values):
            raise ConfigError(f'{where}.{key} = {value}: not a number; expected a finite one.'.lstrip('.'))


def walk(node: Any, where: str = '') -> Iterator[tuple[str, Mapping]]:
    """(path, dict) of every dict in nested dicts, lists and tuples."""
    if isinstance(node, Mapping):
        yield where, node
        for key, value in node.items():
            yield from walk(value, f'{where}.{key}'.lstrip('.'))
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from walk(value, f'{where}.{i}')


def untyped_consumer(node: Mapping, where: str) -> tuple[Any, set[str]] | None:
    """(class, other keys) for a dict without ``type`` whose class follows from its place; None elsewhere."""
    path = where.split('.')
    if path[-2:-1] == ['views']:
        return (PatchView if 'parent' in node else View), set()
    if path[-3:-2] == ['views'] and path[-1] == 'parent':
        return Chain, set()
    return UNTYPED.get(where)


def find_component(name: str, where: str) -> tuple[Any, Registry]:
    """The class or function that ``name`` stands for at the path ``where``, and its registry; ConfigError if unknown."""
    expected, every = expected_registry(where), [*dict.fromkeys(KINDS.values())]
    for registry in every if expected is None else [expected, *every]:
        if name in registry:
            return registry.get(name), registry
    asked = every if expected is None else [expected]  # a registry without own entries is falsy
    known = sorted({known for registry in asked for known in registry.names()})
    kind = 'component' if expected is None else expected.name
    raise ConfigError(f'{where}: {unknown_type_message(name, kind, known)}')


def expected_registry(where: str) -> Registry | None:
    """The registry of the innermost key of ``where`` that says what it holds."""
    return next((KINDS[key] for key in reversed(where.split('.')) if key in KINDS), None)


def accepted_by(node: Mapping, where: str) -> tuple[list[str], bool]:
    """Keywords that the consumer of the dict at ``where`` takes, and whether it takes any other as well."""
    consumer = _consumer(node, where)
    if consumer is None:
        return [], False
    names, anything = accepted_keywords(consumer[0])
    return [*(n for n in names if n != 'self'), *consumer[1]], anything


def _consumer(node: Mapping, where: str) -> tuple[Any, set[str]] | None:
    """What the keywords of the dict at ``where`` go to, and which others may stand there; None if nobody knows."""
    if not is_typed(node):
        return untyped_consumer(node, where)
    found, registry = find_component(node['type'], where)
    others = TAKEN_BY_BUILDERS.get(registry.name, set())
    if getattr(found, 'per_step', False):
        return found.build_iter_from_epoch, others
    if isinstance(found, type) and issubclass(found, _ParamScheduler):  # most hand *args, **kwargs on to their parent
        for base in (base for base in found.__mro__ if '__init__' in vars(base)):
            names, handed_on = accepted_keywords(base)
            if not handed_on:
                return base, others
            others = others | set(names)
    return found, others


def _check_keywords(factory: Any, others: set[str], node: Mapping, where: str) -> None:
    given = [key for key in node if key not in {'type', '_scope_', *others}]
    try:
        check_keywords(factory, given, where)
    except TypeError as error:
        text = str(error)
        replaces = '' if 'Did you mean' in text else ' To replace an inherited dict, not to add to it: _delete_=True.'
        raise ConfigError(text + replaces) from None
