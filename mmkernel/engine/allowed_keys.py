"""The keys that each dict of a config may have: a key that nothing reads is refused before anything is built."""

import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import reduce
from typing import Any, NamedTuple

import mmengine.registry as roots
from mmengine.optim import _ParamScheduler
from mmengine.runner import LogProcessor, set_random_seed
from mmengine.utils.dl_utils import set_multi_processing
from mmengine.visualization import Visualizer
from torch.utils.data import DataLoader

from mmkernel import registry as ours
from mmkernel.datasets import PatchView, View
from mmkernel.datasets.views import Chain
from mmkernel.engine.learning_rates import KEYS
from mmkernel.engine.loop import EpochLoop
from mmkernel.engine.optim_wrapper import PretrainOptimWrapper
from mmkernel.engine.schedule import FIXED
from mmkernel.registry import Registry, accepted_keywords, check_names, unknown_type_message

TOP_LEVEL = (
    'model data_preprocessor train_dataloader train_cfg optim_wrapper param_scheduler lr_scaling evaluation randomness '
    'default_scope default_hooks custom_hooks custom_imports import_folders work_dir load_from resume resume_anyway launcher '
    'env_cfg log_level log_processor visualizer sync_bn channels_last find_unused_parameters num_samples experiment_name '
    'compile activation_checkpointing fsdp tf32 model_wrapper_cfg'
).split()
# Keywords that mmengine's builders take out of a dict before the class sees it, or put in.
TAKEN_BY_BUILDERS = {
    'hook': ('priority',), 'loop': ('by_epoch',), 'optim_wrapper': ('constructor', 'paramwise_cfg', 'optimizer', 'layer_decay'),
    'parameter scheduler': ('convert_to_iter_based', 'by_epoch', 'begin', 'end'),
}  # fmt: skip
# Readers of dicts without ``type``, and what may stand there beside the keywords of the reader.
UNTYPED = {
    'train_cfg': (EpochLoop, 'by_epoch'), 'train_dataloader': (DataLoader, 'num_batch_per_epoch'),
    'optim_wrapper': (PretrainOptimWrapper, 'constructor', 'paramwise_cfg', 'layer_decay'), 'randomness': (set_random_seed,),
    'env_cfg.mp_cfg': (set_multi_processing,), 'log_processor': (LogProcessor,), 'visualizer': (Visualizer,),
    'env_cfg': (None, 'cudnn_benchmark', 'matmul_precision', 'mp_cfg', 'dist_cfg', 'resource_limit', 'silent_after'),
    'env_cfg.dist_cfg': (None, 'timeout', 'backend'), 'custom_imports': (None, 'imports', 'allow_failed_imports'),
    'evaluation': (None, 'train', 'test', 'transform', 'batch_size', 'num_workers', 'metric'),
}  # fmt: skip
MULTIPLIERS = tuple(
    f'{name}_mult' for name in 'bias_lr bias_decay norm_decay flat_decay dwconv_decay dcn_offset_lr'.split()
)
DEFAULT_CONSTRUCTOR = 'DefaultOptimWrapperConstructor'
# Which registry a component is looked for in first, by the key that holds it.
KINDS = {
    key: registry for registry, keys in {
        ours.MODELS: 'model data_preprocessor', ours.KERNELS: 'kernel', ours.DATASETS: 'dataset source evaluation',
        ours.TRANSFORMS: 'views transform ops', ours.DATA_SAMPLERS: 'sampler batch_sampler',
        ours.FUNCTIONS: 'collate_fn worker_init_fn', ours.HOOKS: 'default_hooks custom_hooks',
        ours.OPTIM_WRAPPERS: 'optim_wrapper', ours.OPTIMIZERS: 'optimizer', ours.PARAM_SCHEDULERS: 'param_scheduler',
        ours.LOOPS: 'train_cfg', ours.VISUALIZERS: 'visualizer',
    }.items() for key in keys.split()
} | {  # to these we add nothing; mmengine warns about a scope that lacks one
    key: Registry(root.name, parent=root, scope='mmkernel') for key, root in dict(
        vis_backends=roots.VISBACKENDS, log_processor=roots.LOG_PROCESSORS, model_wrapper_cfg=roots.MODEL_WRAPPERS,
        constructor=roots.OPTIM_WRAPPER_CONSTRUCTORS,
    ).items()
}  # fmt: skip


class ConfigError(ValueError):
    """A config with an unknown key, a wrong value, or parts that contradict each other."""


def check_components(cfg: Mapping) -> None:
    """ConfigError, with the path in the config, for an unknown ``type`` or key, or NaN, anywhere below ``cfg``."""
    for where, node in walk(cfg):
        if where:
            check_keys(node, reader_of(cfg, node, where), where)
        for key, value in node.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            if any(isinstance(v, float) and math.isnan(v) for v in values):
                raise ConfigError(f'{where}.{key} = {value}: not a number; expected a finite one.'.lstrip('.'))


class Reader(NamedTuple):
    """What reads a dict: its name ('' if unknown), the keys that it takes, and whether it takes any other as well."""

    name: str = ''
    keys: Collection[str] = ()
    anything: bool = True


def check_keys(given: Mapping, reader: Reader, where: str) -> None:
    """ConfigError for a key that the reader does not take, with the nearest that it does."""
    if not reader.anything:
        names = (key for key in given if key not in ('type', '_scope_'))
        with as_config_error():
            replace = 'To replace an inherited dict, not to add to it: _delete_=True.'
            check_names(names, reader.keys, f'{where}: {reader.name}', replace)


@contextmanager
def as_config_error(where: str = '') -> Iterator[None]:
    """An error of a check inside becomes a ConfigError, with the place ``where``."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f'{where}{error}') from None


def reader_of(cfg: Mapping, node: Mapping, where: str) -> Reader:
    """The reader of the dict at the path ``where``; if it is unknown, one that takes anything."""
    path, groups = where.split('.'), 'optim_wrapper.paramwise_cfg'
    if not where:
        return Reader('Runner', TOP_LEVEL, False)
    if f'{where}.'.startswith(f'{groups}.'):
        return _group_reader(cfg['optim_wrapper'], where.removeprefix(groups).lstrip('.'))
    found, others = None, ()
    if is_typed(node) and where != 'optim_wrapper.clip_grad':
        found, registry = find_component(node['type'], where)
        others = TAKEN_BY_BUILDERS.get(registry.name, ())
    elif path[-2:-1] == ['views']:
        found = PatchView if 'parent' in node else View
    elif path[-3:-2] == ['views'] and path[-1] == 'parent':
        found = Chain
    elif where in UNTYPED:
        found, *others = UNTYPED[where]
    if found is None:
        return Reader('the dict', others, False) if others else Reader()
    name = getattr(found, '__name__', str(found))
    found = found.build_iter_from_epoch if getattr(found, 'per_step', False) else found
    try:
        keys, anything = accepted_keywords(found)
    except ValueError:  # a builtin without a signature
        return Reader(name)
    if isinstance(found, type) and issubclass(found, _ParamScheduler):  # most hand *args, **kwargs on to their parent
        for base in (base for base in found.__mro__ if anything and '__init__' in vars(base)):
            more, anything = accepted_keywords(base)
            keys += more
    return Reader(name, [key for key in dict.fromkeys([*keys, *others]) if key != 'self'], anything)


def _group_reader(wrapper: Mapping, below: str) -> Reader:
    """The reader of ``paramwise_cfg`` or, at the path ``below``, of the options of a group of parameters."""
    constructor, optimizer = wrapper.get('constructor') or DEFAULT_CONSTRUCTOR, wrapper.get('optimizer') or {}
    options = [*FIXED]
    if is_typed(optimizer):
        names, _ = accepted_keywords(find_component(optimizer['type'], 'optim_wrapper.optimizer')[0])
        options += [name for name in names if name not in ('self', 'params')]
    if constructor == DEFAULT_CONSTRUCTOR and below != 'custom_keys':
        rules = ('lr_mult', 'decay_mult', *options) if below else ('custom_keys', *MULTIPLIERS, 'bypass_duplicate')
        return Reader(constructor, rules, False)
    if constructor == 'VectorRateConstructor':
        return Reader(constructor, KEYS, False)
    return Reader(constructor, options, not (below and constructor == 'PartRateConstructor'))


def is_typed(node: Mapping) -> bool:
    return isinstance(node.get('type'), str)


def at(cfg: Any, place: str) -> Any:
    """The value at 'a.b.c'; None where there is none."""
    return reduce(lambda node, key: node.get(key) if isinstance(node, Mapping) else None, place.split('.'), cfg)


def walk(node: Any, where: str = '') -> Iterator[tuple[str, Mapping]]:
    """(path, dict) of every dict in nested dicts, lists and tuples."""
    if isinstance(node, Mapping):
        yield where, node
    elif not isinstance(node, (list, tuple)):
        return
    for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
        yield from walk(value, f'{where}.{key}'.lstrip('.'))


def find_component(name: str, where: str) -> tuple[Any, Registry]:
    """The class or function that ``name`` stands for at the path ``where``, and its registry; ConfigError if unknown.

    It is looked for first in the registry of the innermost key of ``where`` that says what it holds.
    """
    expected, every = next((KINDS[key] for key in reversed(where.split('.')) if key in KINDS), None), [*KINDS.values()]
    for registry in every if expected is None else [expected, *every]:
        if name in registry:
            return registry.get(name), registry
    asked = every if expected is None else [expected]  # a registry without own entries is falsy
    known = sorted({known for registry in asked for known in registry.names()})
    kind = 'component' if expected is None else expected.name
    raise ConfigError(f'{where}: {unknown_type_message(name, kind, known)}')


def default_of(part: Mapping, where: str, key: str, otherwise: Any = None) -> Any:
    """The default of the keyword ``key`` of the component ``part`` at the path ``where``; ``otherwise`` if it has none."""
    try:
        keyword = inspect.signature(find_component(str(part['type']), where)[0]).parameters[key]
    except (ConfigError, KeyError, TypeError, ValueError):
        return otherwise
    return otherwise if keyword.default is keyword.empty else keyword.default
