"""The digits recipes as runs of seconds, and whether two checkpoints are equal: what the soak and the tests of a resume share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmkernel.engine import read_checkpoint

ROOT = Path(__file__).resolve().parents[1]
SHORT = {
    'train_dataloader.num_batch_per_epoch': 5,
    'train_cfg.max_epochs': 2,
    'param_scheduler.warmup_epochs': 0,
    'default_hooks.checkpoint.max_keep': None,
    'log_level': 'ERROR',
}
SMALL = {
    'model.backbone.channels': (4, 4, 4, 8),
    'model.neck.dims': (16, 8),
    'train_dataloader.batch_size': 16,
    'default_hooks.monitor.interval': 2,
}
OWN = {
    'byol/digits.py': {'model.predictor.dims': (16, 8)},
    'moco/digits_v2.py': {'model.head.queue.length': 64},
    'swav/digits_queue.py': {'model.head.queue_length': 64, 'default_hooks.queue.start_epoch': 0},
    'deepcluster/digits_v1.py': {'default_hooks.cluster.interval': 1, 'default_hooks.cluster.pca_dim': 6},
    'wmse/digits_2views.py': {'model.head.sub_batch_size': 16},
    'dbn/digits_shuffled_dbn.py': {'model.neck.last_norm.groups': 4},
}
WORKERS = {0: {}, 2: dict(num_workers=2, persistent_workers=False), 'persistent': dict(num_workers=2)}
STARTS = ('experiment_name', 'mmengine_version')  # the version names the commit that HEAD was at
CLOCKS = ('time', 'data_time', 'eta', 'memory', 'images_per_second', 'waiting')  # what a log says of the machine


def small(path: str, workers: int | str = 0, accumulation: int = 1, virtual: int = 1) -> dict[str, Any]:
    """Options that make configs/``path`` a run of seconds. ``workers``: 0, 2 or 'persistent'; ``virtual``: batches of a step."""
    options = {**SHORT, **SMALL, 'optim_wrapper.accumulative_counts': accumulation, **OWN.get(path, {})}
    if path == 'deepcluster/digits_v1.py':  # it has no neck
        del options['model.neck.dims']
    if virtual > 1:
        options['train_cfg.virtual_batch'] = 16 * virtual
    return options | {f'train_dataloader.{key}': value for key, value in WORKERS[workers].items()}


def thin(cfg: Any, batch: int | None = None) -> None:
    """Half of the channels, fewer images for the doctor and in a batch; the composition, and widths behind the backbone, stay."""
    backbone, head = cfg.model.backbone, cfg.model.get('head', {})
    if 'channels' in backbone:
        backbone.channels = [c // 2 for c in backbone.channels]
    if cfg.default_hooks.get('doctor'):
        cfg.default_hooks.doctor.images = 32
    if batch:
        cfg.train_dataloader.batch_size = batch
        if head.get('sub_batch_size'):
            head.sub_batch_size = batch


def values(value: Any, name: str = '') -> dict[str, Any]:
    """{dotted name: number, text or tensor} of nested dicts, lists and tuples."""
    if isinstance(value, (dict, list, tuple)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for k, part in pairs for key, leaf in values(part, f'{name}.{k}').items()}
    return {name: value}


def contents(path: str | Path) -> dict[str, Any]:
    """What a checkpoint holds of the training, not of the machine and of the start."""
    found = read_checkpoint(path)
    for key in ('run', 'time', 'config', 'settings'):
        del found['meta'][key]
    for part in found['message_hub'].values():
        for key in [key for key in part if key.split('/')[-1] in CLOCKS or key in STARTS]:
            del part[key]
    return {
        name: value for name, value in values(found).items() if not name.endswith('.differentiable')
    }  # torch adds it


def differences(a: str | Path, b: str | Path) -> list[str]:
    """Names of the values that two checkpoints do not share bit for bit."""
    a, b = contents(a), contents(b)
    found = sorted(a.keys() ^ b.keys())
    for name in a.keys() & b.keys():
        tensors = isinstance(a[name], torch.Tensor) and isinstance(b[name], torch.Tensor)
        equal = torch.equal(a[name], b[name]) if tensors else repr(a[name]) == repr(b[name])
        found += [] if equal else [name]
    return found
