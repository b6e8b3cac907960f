"""Compare the config inside a checkpoint with the config of a resume, as resolved values."""

import json
import platform
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import mmengine
import torch

import mmkernel
from mmkernel.engine.allowed_keys import at, default_of, walk
from mmkernel.engine.allowed_values import hooks_of
from mmkernel.engine.learning_rates import effective_batch
from mmkernel.registry import PARAM_SCHEDULERS
from mmkernel.zoo.files import CheckpointError

REFUSED, SAID, QUIET = 'refused', 'said', 'quiet'
# The longest listed prefix of a path decides. A top-level key that is not listed is a helper variable and is not compared.
# Some hooks are part of a method, some only watch; all others are said. The seed of the checkpoint is used, see persistence.py.
PLACES = {
    REFUSED: """model data_preprocessor train_dataloader optim_wrapper.optimizer.type param_scheduler
        hooks.MomentumUpdateHook hooks.QueueHook hooks.ClusterHook hooks.FreezeHook hooks.CommitHook hooks.SeedHook
        hooks.BackboneWeightsHook""",
    SAID: """hooks train_dataloader.batch_size train_dataloader.num_batch_per_epoch train_dataloader.dataset.on_corrupt
        train_dataloader.collate_fn train_dataloader.dataset.views_on train_dataloader.dataset.exact
        train_cfg optim_wrapper lr_scaling randomness env_cfg sync_bn channels_last tf32 compile evaluation
        activation_checkpointing fsdp model_wrapper_cfg model.neck.sharded""",
    QUIET: """train_dataloader.num_workers train_dataloader.persistent_workers train_dataloader.prefetch_factor
        train_dataloader.pin_memory train_dataloader.timeout train_cfg.val_begin train_cfg.val_interval randomness.seed
        env_cfg.dist_cfg env_cfg.mp_cfg env_cfg.silent_after data_preprocessor.channels_last hooks.CheckpointHook hooks.LoggerHook
        hooks.IterTimerHook hooks.EmbeddingMonitorHook hooks.ViewSheetHook hooks.DoctorHook hooks.KNNMonitorHook
        hooks.OnlineProbeHook hooks.AccuracyHook hooks.PreemptionHook hooks.PulseHook hooks.ProgressHook
        hooks.ReportHook""",
}
MEANING = {place: meaning for meaning, places in PLACES.items() for place in places.split()}
# What to know about a difference that is refused
HINTS = {
    'optim_wrapper.optimizer': ' (the state of one does not fit the other)',
    'param_scheduler': ' (a schedule of mmengine continues as in the checkpoint: the change would have no effect)',
}
ORDERED = ('views', 'ops')  # dicts that are applied in their order
ABSENT = object()


class OtherRunError(CheckpointError):
    """The checkpoint belongs to another run than the config describes."""


class Difference(NamedTuple):
    """A place where the config differs from that of the checkpoint, and whether it is refused, said or ignored."""

    path: str
    old: Any
    new: Any
    meaning: str

    def __str__(self) -> str:
        hint = next((HINTS[key] for key in HINTS if self.meaning == REFUSED and self.path.startswith(key)), '')
        return f'{self.path}: {in_words(self.old)} -> {in_words(self.new)}{hint}'


def resolved(values: Any) -> Any:
    """The values of a config as a checkpoint holds them: dicts, lists, numbers, texts; classes and functions by name."""
    name_of = lambda value: getattr(value, '__name__', type(value).__name__)  # noqa: E731  (its text may hold an address)
    return json.loads(json.dumps(values, skipkeys=True, default=name_of))


def versions() -> dict[str, str]:
    found = {package.__name__: str(package.__version__) for package in (mmkernel, torch, mmengine)}
    return found | dict(python=platform.python_version())


def compare_runs(meta: Mapping, settings: dict, world_size: int, source: str, anyway: bool = False) -> list[str]:
    """Every difference between the run in the checkpoint ``source`` and the one asked for, once each, in words.

    ``settings``: ``resolved`` of the config. OtherRunError if one of them changes model, objective, views or data, or would
    have no effect; with ``anyway`` these are returned like the others.
    """
    then, now = meta.get('settings') or {}, versions()
    found = compare_settings(then, settings) if then and settings else []
    batches = [_effective(then, meta.get('world_size', 1)), _effective(settings, world_size)]
    facts = [('world_size', meta.get('world_size', world_size), world_size), ('effective batch', *batches)]
    facts += [(f'version of {name}', old, now[name]) for name, old in meta.get('versions', {}).items() if name in now]
    found += [Difference(*fact, SAID) for fact in facts if None not in fact and fact[1] != fact[2]]
    refused = [str(each) for each in found if each.meaning == REFUSED]
    allowed = [str(each) for each in found if each.meaning == SAID]
    allowed += [] if then else ['the checkpoint does not say what was trained: nothing of it is compared']
    if refused and not anyway:
        head = f"'{source}' belongs to another run than this config describes (checkpoint -> now):"
        lines = '\n  '.join([head, *refused, *(f'{each} (allowed)' for each in allowed)])
        raise OtherRunError(
            f'{lines}\nResume with the config of that run, or start a new one: another --work-dir, and load_from=FILE for its '
            'weights. If the change is meant: --resume-anyway (in Python resume_anyway=True).'
        )
    return refused + allowed


def compare_settings(then: Mapping, now: Mapping) -> list[Difference]:
    """The differences of two resolved configs that mean something."""
    schedules = [item['type'] for _, item in walk(now.get('param_scheduler')) if 'type' in item]
    # a changed schedule of ours takes effect; mmengine's continue as in the checkpoint
    follows = bool(schedules) and all(getattr(PARAM_SCHEDULERS.get(kind), 'per_step', False) for kind in schedules)
    meaning = MEANING | (dict(param_scheduler=SAID) if follows else {})
    both = []
    for settings in (then, now):
        hooks: dict[str, Any] = {}  # by type: their names and places do not matter
        for hook in hooks_of(settings).values():
            if isinstance(hook, dict) and 'type' in hook:
                kind = str(hook['type']).rpartition('.')[2]
                hooks[kind if kind not in hooks else f'{kind}.{len(hooks)}'] = hook
        both.append({**{key: value for key, value in settings.items() if key in MEANING}, 'hooks': hooks})
    found = []
    for path, old, new in differing('', *both):
        kinds = isinstance(old, dict) and isinstance(new, dict)
        parts = f'{path}.type'.split('.') if kinds else path.removesuffix(' (order)').split('.')
        known = next(meaning[key] for n in range(len(parts), 0, -1) if (key := '.'.join(parts[:n])) in meaning)
        found += [Difference(path, old, new, known)] if known != QUIET else []
    return found


def _effective(settings: Mapping, world_size: int) -> int | None:
    batch, accumulated = at(settings, 'train_dataloader.batch_size'), at(settings, 'optim_wrapper.accumulative_counts')
    return at(settings, 'train_cfg.virtual_batch') or (batch and effective_batch(batch, world_size, accumulated or 1))


def differing(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """(path, old, new) of the differences below ``path``; parts of another type are one difference."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get('type') == new.get('type'):
        for key in {**old, **new}:
            a, b = old.get(key, ABSENT), new.get(key, ABSENT)
            if (a is not ABSENT and b is not ABSENT) or not _equal(
                resolved(default_of(old, path, key, ABSENT)), b if a is ABSENT else a
            ):
                yield from differing(f'{path}.{key}'.lstrip('.'), a, b)
        if path.rpartition('.')[2] in ORDERED and set(old) == set(new) and list(old) != list(new):
            yield f'{path} (order)', list(old), list(new)
    elif type(old) is type(new) is list and len(old) == len(new) and {dict, list} & {*map(type, old + new)}:
        for i, (a, b) in enumerate(zip(old, new, strict=True)):  # a list of numbers is one value
            yield from differing(f'{path}.{i}', a, b)
    elif not _equal(old, new):
        yield path, old, new


def _equal(a: Any, b: Any) -> bool:
    """Whether two values train the same: 1 is 1.0 but not True, NaN is NaN."""
    return repr(a) == repr(b) or (a == b and bool not in (type(a), type(b)))


def in_words(value: Any) -> str:
    if value is ABSENT:
        return 'not set'
    if isinstance(value, dict):
        inside = ', '.join(f'{key}={in_words(item)}' for key, item in value.items() if key != 'type')
        return f'{value.get("type", "dict")}({inside})'
    if isinstance(value, list):
        return f'[{", ".join(map(in_words, value))}]'
    return repr(value)
