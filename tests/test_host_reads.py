"""Between two log intervals nothing is read back from the device, and hosts exchange nothing, whatever the method."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from host_reads import HostReads, between_logs, metered
from multiprocess import run_processes

from mmkernel.engine import load_config, train

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(f'{path.parent.name}/{path.stem}' for path in ROOT.glob('configs/[!_]*/*digits*.py'))
FAST = ('moco/digits_v1', 'sfrik/digits_L3', 'swav/digits_queue')
# rows for the loss; rows to remember; rows before a sharded layer
GATHERING = ('sfrik/digits_L3', 'deepcluster/digits_v2', 'sfrik/digits_L2_sharded')
CLASSIFIERS = [config for config in CONFIGS if config.startswith('benchmarks/')]
VARIANTS = {
    'probe': ('sfrik/digits_L2', dict(custom_hooks=[dict(type='OnlineProbeHook', max_images=60)])),
    'views': (
        'sfrik/digits_L3',
        dict(
            train_dataloader=dict(
                dataset=dict(
                    exact=False,
                    views_on='device',
                    views=dict(both=dict(ops=dict(affine=None, noise=None, erase=None, flip=dict(type='RandomFlip')))),
                )
            )
        ),
    ),
    'virtual batch': ('sfrik/digits_L2', dict(train_cfg=dict(virtual_batch=64))),
    'accumulation': ('byol/digits', dict(optim_wrapper=dict(accumulative_counts=2))),
    'clipping': ('simclr/digits', dict(optim_wrapper=dict(clip_grad=dict(max_norm=1.0)))),
    'LARS': ('barlow_twins/digits', dict(optim_wrapper=dict(optimizer=dict(_delete_=True, type='LARS', lr=0.1)))),
}


def counted(config, folder, **changes):
    """What was read, and what hosts exchanged, in two steps between two log intervals."""
    cfg = load_config(ROOT / f'configs/{config}.py')
    cfg.merge_from_dict(changes)
    cfg.work_dir, cfg.train_cfg.max_epochs = str(folder), 1
    cfg.train_dataloader.update(num_workers=0, num_batch_per_epoch=4 * cfg.train_cfg.get('virtual_batch', 32) // 32)
    if 'virtual_batch' in cfg.train_cfg:
        cfg.train_dataloader.batch_size = 32
    return metered(train(between_logs(cfg)))


@pytest.mark.parametrize('config', [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CONFIGS])
def test_one_process(config, tmp_path):
    assert counted(config, tmp_path) == ({}, {})


@pytest.mark.parametrize(
    'name', ['probe', 'views', *(pytest.param(v, marks=pytest.mark.slow) for v in list(VARIANTS)[2:])]
)
def test_what_else_a_step_may_do(name, tmp_path):
    config, changes = VARIANTS[name]
    assert counted(config, tmp_path, **changes) == ({}, {})


def on_rank(rank, world_size, folder, configs):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    return [counted(config, folder / config, launcher='pytorch') for config in configs]


@pytest.mark.parametrize(
    'configs', [GATHERING, pytest.param(CLASSIFIERS, marks=pytest.mark.slow)], ids=['some', 'classifiers']
)
def test_two_processes(configs, tmp_path):
    """Every other config: in tests/test_every_method.py."""
    for results in run_processes(on_rank, 2, tmp_path, configs, timeout=400 + 60 * len(configs)):
        assert dict(zip(configs, results, strict=True)) == {config: ({}, {}) for config in configs}


READS = {
    'item': lambda z: z.sum().item(),
    'bool': lambda z: bool((z > 0).all()),
    'if': lambda z: 1 if z.sum() > 0 else 0,
    'float': lambda z: float(z.sum()),
    'int': lambda z: int(z.argmax()),
    'index': lambda z: [0] * 20 and range(20)[z.argmax()],
    'tolist': lambda z: z.tolist(),
    'numpy': lambda z: z.numpy(),
    'asarray': lambda z: np.asarray(z),
    'cpu': lambda z: z.cpu(),
    'to': lambda z: z.to('cpu'),
    'repr': lambda z: repr(z),
    'format': lambda z: f'{z.sum():.3f}',
    'equal': lambda z: torch.equal(z, z),
    'allclose': lambda z: torch.allclose(z, z),
    'unique': lambda z: z.unique(),
    'nonzero': lambda z: z.nonzero(),
    'mask': lambda z: z[z > 0],
    'masked write': lambda z: z.__setitem__(z > 0, 0.0),
    'masked_select': lambda z: z.masked_select(z > 0),
    'repeats': lambda z: z[0].repeat_interleave((z[0] > 0).long()),
    'cholesky': lambda z: torch.linalg.cholesky(z.T @ z + torch.eye(3, device=z.device)),
    'list onto the device': lambda z: torch.tensor([1.0], device=z.device),
    'list as an index': lambda z: z[[0, 1]],
    'host index': lambda z: z[torch.tensor([0, 1])],
    'host rows': lambda z: torch.ones(5).to(z.device),
    'copy_': lambda z: z.copy_(torch.ones(4, 3)),
}
NO_READS = {
    'host': lambda z: torch.ones(2).sum().item(),
    'arithmetic': lambda z: (z * 2).where(z > 0, 0.0).sum().clamp(min=1),
    'device index': lambda z: z[torch.arange(2, device=z.device)],
    'slices': lambda z: z[1:, None, :2],
    'dtype': lambda z: z.to(torch.float64),
    'asynchronous': lambda z: z.to('cpu', non_blocking=True).tolist(),
    'sent': lambda z: torch.ones(5).to(z.device, non_blocking=True),
    'masked_fill': lambda z: z.masked_fill_(z > 0, 0),
    'eigh': lambda z: torch.linalg.eigh(z.T @ z),
    'repeats': lambda z: z.repeat_interleave(2, 0),
}


@pytest.mark.parametrize('name', READS)
def test_the_meter_sees(name):
    assert sum(reads(READS[name]).values()) == 1


@pytest.mark.parametrize('name', NO_READS)
def test_the_meter_does_not_see(name):
    assert not reads(NO_READS[name])


def reads(function):
    w = torch.nn.Linear(5, 3).requires_grad_(False)
    with HostReads(w.parameters()) as meter:
        function(w(torch.randn(4, 5)))
    return meter.reads


def test_gradients_lie_on_the_device_too():
    w = torch.nn.Linear(5, 3)
    with HostReads(w.parameters()) as meter:
        w(torch.randn(4, 5)).square().sum().backward()
        w.weight.grad.norm().item()
    assert sum(meter.reads.values()) == 1
