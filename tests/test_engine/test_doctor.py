import types

import pytest
import torch
from torch import nn

from mmkernel.engine import DoctorHook, load_config, train
from mmkernel.registry import HOOKS


class Model(nn.Module):
    """Embeddings are the pixels themselves, times ``gain`` per dimension."""

    def __init__(self):
        super().__init__()
        self.neck, self.gain = nn.Identity(), torch.ones(16)

    def extract(self, images, stage):
        assert stage == 'neck'
        return images.flatten(1).float() * self.gain


class Log(list):
    warning = info = list.append


def runner(epochs=8, views=('View',)):
    dataset = types.SimpleNamespace(views=dict.fromkeys(views))
    return types.SimpleNamespace(
        model=Model(), logger=Log(), epoch=0, max_epochs=epochs, train_dataloader=types.SimpleNamespace(dataset=dataset)
    )


def epoch(hook, run, number, batches=3):
    run.epoch = number
    hook.before_train_epoch(run)
    g = torch.Generator().manual_seed(number)
    for i in range(batches):
        images = torch.randn(48, 1, 4, 4, generator=g)
        hook.after_train_iter(run, i, dict(inputs=[images, images + 0.01]))
    hook.after_train_epoch(run)


def test_it_warns_once_and_says_when_it_is_over():
    hook, run = HOOKS.build(dict(type='DoctorHook', interval=1, begin=0.25)), runner()
    run.model.gain = torch.tensor([1.0, *[1e-3] * 15])
    for number in range(2):
        epoch(hook, run, number)
    assert run.logger == []  # a fresh encoder may be collapsed
    epoch(hook, run, 2)
    epoch(hook, run, 3)
    assert len(run.logger) == 1
    assert run.logger[0].startswith('Epoch 3: the embedding has collapsed: 99 % of the variance in 1 of 16 dimensions')
    run.model.gain = torch.ones(16)
    epoch(hook, run, 4)
    assert len(run.logger) == 2
    assert 'no longer collapsed' in run.logger[1]


def test_it_looks_at_intervals_and_at_the_end():
    hook, run = DoctorHook(interval=3, begin=0.0), runner(epochs=8)
    looked = []
    for number in range(8):
        epoch(hook, run, number)
        looked += [number] if hook.looking else []
    assert looked == [2, 5, 7]


def test_it_keeps_no_more_images_than_it_needs():
    hook, run = DoctorHook(interval=1, begin=0.0, images=64), runner()
    hook.before_train_epoch(run)
    for i in range(5):
        hook.after_train_iter(run, i, dict(inputs=[torch.randn(48, 1, 4, 4)]))
    assert len(hook.recent) == 2


def test_what_it_cannot_judge_it_leaves_alone():
    from mmkernel.datasets import PatchView

    hook = DoctorHook(interval=1, begin=0.0)
    run = runner()
    patch = PatchView(count=1, size=4, parent=dict(size=8, crop=dict(type='RandomResizedCrop')), grid=(2, 2))
    run.train_dataloader.dataset.views = dict(patches=patch)
    epoch(hook, run, 0)
    run.train_dataloader.dataset.views = dict(a=None)
    run.model.neck = None
    epoch(hook, run, 1)
    run.model.neck, run.model.gain = nn.Identity(), torch.full((16,), torch.nan)
    epoch(hook, run, 2)  # the guard of non-finite losses speaks of these
    assert run.logger == []


def test_views_of_unlike_sizes():
    hook, run = DoctorHook(interval=1, begin=0.0), runner()
    hook.before_train_epoch(run)
    hook.after_train_iter(run, 0, dict(inputs=[torch.randn(64, 1, 4, 4), torch.randn(64, 1, 2, 2)]))
    hook.after_train_epoch(run)
    assert run.logger == []
    assert hook.state == 'healthy'


@pytest.mark.parametrize('settings', [dict(interval=0), dict(begin=2.0), dict(images=1)])
def test_bad_settings(settings):
    with pytest.raises(ValueError, match='DoctorHook'):
        DoctorHook(**settings)


@pytest.mark.parametrize('doctor', [dict(type='DoctorHook', interval=1, begin=0.0, images=32)])
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
