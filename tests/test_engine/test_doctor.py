import types

import pytest
import torch
from torch import nn

from mmkernel.datasets import ViewDataset
from mmkernel.engine import DoctorHook, load_config, monitors, train
from mmkernel.engine.schedule import build_schedules
from mmkernel.evaluation import Cloud
from mmkernel.registry import HOOKS


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.neck, self.extract = nn.Identity(), None


class Epoch(types.SimpleNamespace):
    def __len__(self):
        return 8


class Log(list):
    warning = info = list.append


@pytest.fixture
def gain(monkeypatch):
    """Embeddings are Gaussian, times ``gain`` per dimension; two views are close to each other."""
    gain = torch.ones(16)

    def sample(model, cfg, images, source):
        z = torch.randn(images, 16, generator=torch.Generator().manual_seed(0)) * gain
        return Cloud(z, z, None, None, (z, z + 0.01 * gain), '')

    monkeypatch.setattr(monitors, 'sample_cloud', sample)
    return gain


def runner(epochs=8, view=None):
    view = view or dict(count=2, size=4, crop=dict(type='RandomResizedCrop'))
    data = ViewDataset(dict(type='Digits', split='test'), dict(a=view))
    loader = Epoch(dataset=data)
    cfg = types.SimpleNamespace(train_dataloader={})
    return types.SimpleNamespace(
        model=Model(),
        logger=Log(),
        epoch=0,
        max_epochs=epochs,
        train_dataloader=loader,
        cfg=cfg,
        iter=1000,
        param_schedulers=None,
    )


def epoch(hook, run, number):
    run.epoch = number
    hook.after_train_epoch(run)


def test_it_warns_once_and_says_when_it_is_over(gain):
    hook, run = HOOKS.build(dict(type='DoctorHook', interval=1, begin=0.25)), runner()
    gain[1:] = 1e-3
    for number in range(2):
        epoch(hook, run, number)
    assert run.logger == []  # a fresh encoder may be collapsed
    epoch(hook, run, 2)
    epoch(hook, run, 3)
    assert len(run.logger) == 1
    assert run.logger[0].startswith('Epoch 3: the embedding has collapsed: 99 % of the variance in 1 of 16 dimensions')
    gain[:] = 1
    epoch(hook, run, 4)
    assert len(run.logger) == 2
    assert 'no longer collapsed' in run.logger[1]


@pytest.mark.parametrize(
    'schedule, first',
    [
        (None, 100),
        (dict(type='WarmupCosineLR', warmup_epochs=30), 240),
        (dict(type='WarmupCosineLR', warmup_epochs=2), 100),
        (dict(type='LinearLR', start_factor=0.1, by_epoch=True, end=20), 160),
        (dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=150), 150),
        (dict(type='LinearLR', start_factor=1.0, end_factor=0.1, by_epoch=False, end=150), 100),
        (dict(type='MultiStepLR', milestones=[30]), 100),
    ],
)
def test_it_is_silent_in_the_first_steps(gain, schedule, first):
    """In 100 iterations, and as long as the learning rate warms up; epochs have 8 iterations."""
    hook, run = DoctorHook(interval=1, begin=0.0), runner(epochs=60)
    optimizer, epoch_length = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), 8
    if schedule:
        run.param_schedulers = build_schedules([dict(schedule)], optimizer, 60, epoch_length)
    gain[1:] = 1e-3
    for run.iter in range(epoch_length, 60 * epoch_length, epoch_length):
        epoch(hook, run, run.iter // epoch_length - 1)
        assert bool(run.logger) == (run.iter >= first), run.iter


def test_an_image_that_cannot_be_read_ends_no_run(monkeypatch):
    def sample(*args):
        raise ValueError('photo-3.png cannot be decoded')

    monkeypatch.setattr(monitors, 'sample_cloud', sample)
    hook, run = DoctorHook(interval=1, begin=0.0), runner()
    epoch(hook, run, 0)
    assert run.logger == ['DoctorHook could not look after epoch 1: photo-3.png cannot be decoded']


def test_it_looks_at_intervals_and_at_the_end(gain):
    hook, run, looked = DoctorHook(interval=3, begin=0.0), runner(epochs=8), []
    for number in range(8):
        hook.state = None
        epoch(hook, run, number)
        looked += [number] if hook.state else []
    assert looked == [2, 5, 7]


def test_what_it_cannot_judge_it_leaves_alone(gain):
    hook = DoctorHook(interval=1, begin=0.0)
    patches = dict(
        type='PatchView', count=1, size=4, parent=dict(size=8, crop=dict(type='RandomResizedCrop')), grid=(2, 2)
    )
    epoch(hook, runner(view=patches), 0)
    run = runner()
    run.model.neck = None
    epoch(hook, run, 1)
    run = runner()
    gain[:] = torch.nan
    epoch(hook, run, 2)  # the guard of non-finite losses speaks of these
    assert hook.state is None
    assert run.logger == []


@pytest.mark.parametrize('settings', [dict(interval=0), dict(begin=2.0), dict(images=1), dict(steps=-1)])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match='DoctorHook'):
        DoctorHook(**settings)


@pytest.mark.parametrize('doctor', [dict(type='DoctorHook', interval=1, begin=0.0, steps=0, images=32)])
def test_it_changes_no_weight(repository, tmp_path, doctor):
    options = {
        'model.backbone.channels': (4, 4, 4, 4),
        'model.neck.dims': (8, 8),
        'train_dataloader.batch_size': 32,
        'train_dataloader.num_batch_per_epoch': 2,
        'train_cfg.max_epochs': 2,
        'param_scheduler.warmup_epochs': 0,
        'log_level': 'ERROR',
    }
    states = []
    for name in ('with', 'without'):
        cfg = load_config(repository / 'configs/sfrik/digits_L3.py', options)
        del cfg.default_hooks['doctor']
        if name == 'with':
            cfg.default_hooks['doctor'] = doctor
        cfg.work_dir = str(tmp_path / name)
        done = train(cfg)
        states.append(done.model.state_dict())
        assert any(isinstance(hook, DoctorHook) and hook.state for hook in done.hooks) == (name == 'with')
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))
