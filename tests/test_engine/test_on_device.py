"""Whole runs on the CPU and on a GPU: steps without a host read, resuming bit for bit, one process of many, NaN."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook

from mmkernel.engine import NonFiniteLossError, load_config, read_checkpoint, train
from mmkernel.registry import HOOKS

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in ROOT.glob('configs/[!_]*/digits*.py'))
COMPILED = [ROOT / f'configs/{name}.py' for name in ('sfrik/digits_L3', 'vicreg/digits', 'simclr/digits')]
WITH_EIGH = {'dbn/digits_dbn', 'dbn/digits_shuffled_dbn'}  # torch.linalg.eigh looks on the host whether it converged
GPU = pytest.param('bfloat16', 'cuda', marks=pytest.mark.gpu)
HALF = pytest.param('float16', 'cuda', marks=pytest.mark.gpu)
ON_CPU = {'sfrik/digits_L3', 'swav/digits_queue', 'dbn/digits_dbn'}  # enough to try the test itself
STEPS = 2  # of which the host reads nothing, after one that warms up


def name_of(path):
    return f'{path.parent.name}/{path.stem}'


@pytest.fixture
def run_device(device, monkeypatch):
    """A Runner takes the GPU where torch sees one: for a run on the CPU it must see none."""
    if device.type == 'cpu':
        monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    return device


MODE = None


class SyncDebugMode:
    """``torch.cuda.set_sync_debug_mode``; on a CPU a stand-in that keeps the word."""

    def __init__(self, device):
        self.device, self.word, self.steps, self.eigh = device, 'default', 0, 0

    def set(self, word):
        self.word = word
        if self.device.type == 'cuda':
            torch.cuda.set_sync_debug_mode(word)

    @contextmanager
    def off(self):
        word = self.word
        self.set('default')
        yield
        self.set(word)


@HOOKS.register_module()
class BeginStep(Hook):
    """Before everything that an iteration does."""

    priority = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if 1 <= batch_idx <= STEPS:
            MODE.set('error')


@HOOKS.register_module()
class EndStep(Hook):
    """After every other hook of an iteration."""

    priority = 100

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        MODE.steps += MODE.word == 'error'
        MODE.set('default')


def short(path, folder, precision, **options):
    """A digits run of one epoch of four iterations. Neither log nor monitor looks before its end, nor does the guard."""
    cfg = load_config(
        path, {'optim_wrapper.precision': precision, 'train_dataloader.num_batch_per_epoch': 4, **options}
    )
    for name in ('logger', 'monitor', 'doctor'):
        cfg.default_hooks[name].interval = 1000
    cfg.default_hooks.knn = None
    cfg.train_dataloader.batch_size = max(64, cfg.model.head.get('sub_batch_size') or 0)
    cfg.train_cfg.max_epochs = options.get('train_cfg.max_epochs', 1)
    if 'warmup_epochs' in (cfg.get('param_scheduler') or ()):
        cfg.param_scheduler.warmup_epochs = 0
    cfg.work_dir, cfg.log_level = str(folder), 'ERROR'
    return cfg


def steps_without_host_read(path, precision, device, folder, monkeypatch):
    mode, eigh = SyncDebugMode(device), torch.linalg.eigh
    monkeypatch.setattr(sys.modules[__name__], 'MODE', mode)  # hooks are built from a config, which is copied

    def allowed(*args, **kwargs):
        mode.eigh += mode.word == 'error'
        with mode.off():
            return eigh(*args, **kwargs)

    monkeypatch.setattr(torch.linalg, 'eigh', allowed)
    cfg = short(path, folder, precision)
    cfg.custom_hooks = [
        *cfg.get('custom_hooks', ()),
        dict(type='BeginStep'),
        dict(type='EndStep'),
    ]
    try:
        runner = train(cfg)
    finally:
        mode.set('default')
    assert mode.steps == STEPS
    assert (mode.eigh > 0) == (name_of(path) in WITH_EIGH)
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


CASES = [pytest.param(path, *case.values, marks=case.marks) for path in CONFIGS for case in (GPU, HALF)]
CASES += [(path, 'float32', 'cpu') for path in CONFIGS if name_of(path) in ON_CPU]
CASES += [(path, 'bfloat16', 'cpu') for path in CONFIGS if name_of(path) == 'simclr/digits']  # no norm in its neck


@pytest.mark.parametrize(
    'path, precision, device', CASES, indirect=['device'], ids=lambda x: x if isinstance(x, str) else name_of(x)
)
def test_steps_of_every_digits_config(path, precision, run_device, tmp_path, monkeypatch):
    monkeypatch.setenv('MMKERNEL_COMPILE', '0')  # compiling takes longer than all the rest
    steps_without_host_read(path, precision, run_device, tmp_path, monkeypatch)


@pytest.mark.gpu
@pytest.mark.parametrize('path', COMPILED, ids=name_of)
def test_steps_with_compiled_functions(path, tmp_path, monkeypatch):
    steps_without_host_read(path, 'bfloat16', torch.device('cuda'), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    'precision, device',
    [('float32', 'cpu'), GPU, HALF, pytest.param('float32', 'cuda', marks=pytest.mark.gpu)],
    indirect=['device'],
)
@pytest.mark.parametrize('config', ['sfrik/digits_L3', 'byol/digits'])
def test_a_resumed_run_is_the_straight_one_bit_for_bit(config, precision, run_device, tmp_path, monkeypatch):
    monkeypatch.setenv('MMKERNEL_COMPILE', '0')
    options = {'randomness.deterministic': True, 'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.interval': 1}
    cfg, states = short(ROOT / f'configs/{config}.py', tmp_path, precision, **options), []
    try:
        for resume in (False, True):
            runner = train(cfg, resume=resume)
            states.append({name: value.cpu() for name, value in runner.model.state_dict().items()})
            (tmp_path / 'epoch_2.pth').unlink()  # so that the second run goes on after the first epoch
    finally:
        torch.use_deterministic_algorithms(False)
    assert runner.iter == 8
    different = [name for name, value in states[0].items() if not torch.equal(value, states[1][name])]
    assert not different


@pytest.mark.parametrize(
    'device', [pytest.param('cpu', marks=pytest.mark.slow), pytest.param('cuda', marks=pytest.mark.gpu)], indirect=True
)
def test_one_process_of_a_distributed_job_is_a_plain_run(run_device, tmp_path):
    """NCCL on a GPU, gloo on a CPU: DistributedDataParallel, the heads' collectives, the checkpoint."""
    words = [
        ROOT / 'configs/sfrik/digits_L3.py',
        '--cfg-options',
        'train_cfg.max_epochs=1',
        'train_dataloader.num_workers=0',
    ]
    words += ['train_dataloader.num_batch_per_epoch=4', 'param_scheduler.warmup_epochs=0', 'default_hooks.knn=None']
    hidden = {} if run_device.type == 'cuda' else dict(CUDA_VISIBLE_DEVICES='')
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get('PYTHONPATH'))))
    environment = {**os.environ, **hidden, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'MMKERNEL_COMPILE': '0'}
    launchers = dict(
        plain=[sys.executable, ROOT / 'tools/train.py'],
        launched=[
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node',
            '1',
            ROOT / 'tools/train.py',
        ],
    )
    states = []
    for name, launcher in launchers.items():
        command = [*launcher, *words, '--work-dir', tmp_path / name]
        command += ['--launcher', 'pytorch'] if name == 'launched' else []
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        states.append(read_checkpoint(tmp_path / name / 'epoch_1.pth')['state_dict'])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f'{n}: {m}')


def test_a_non_finite_loss_ends_the_run_and_reaches_no_checkpoint(run_device, tmp_path, monkeypatch):
    monkeypatch.setenv('MMKERNEL_COMPILE', '0')
    precision = 'bfloat16' if run_device.type == 'cuda' else 'float32'
    cfg = short(ROOT / 'configs/sfrik/digits_L3.py', tmp_path, precision)
    cfg.custom_hooks = [dict(type='SpoilImages', iteration=2)]
    with pytest.raises(NonFiniteLossError, match='iteration 2 '):
        train(cfg)
    assert not list(tmp_path.glob('*.pth'))


@HOOKS.register_module()
class SpoilImages(Hook):
    """The views of one iteration become NaN."""

    priority = 0

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.iteration:
            data_batch['inputs'] = [view.float() * float('nan') for view in data_batch['inputs']]
