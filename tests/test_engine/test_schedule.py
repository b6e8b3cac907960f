"""The warm-up and cosine schedule against the official curve."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from mmkernel.engine import WarmupCosineLR, load_config, lr_factor, train
from mmkernel.registry import HOOKS

GOLDEN = Path(__file__).parents[1] / 'golden'


def sgd(lr=1.0):
    return torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr)


def run(scheduler, steps):
    """Learning rates that the next ``steps`` optimizer steps use."""
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]['lr'])
        scheduler.step()
    return np.array(rates)


def test_equals_golden_curve():
    with np.load(GOLDEN / 'lrsched_vicreg_e20.npz') as golden:
        peak = float(golden['hp_base_lr']) * lr_factor('linear', int(golden['hp_batch_size']))
        epochs, length = int(golden['hp_epochs']), int(golden['hp_steps_per_epoch'])
        warmup, expected = int(golden['hp_warmup_epochs']), golden['out_lr']
    scheduler = WarmupCosineLR.build_iter_from_epoch(sgd(peak), epochs, length, warmup, end_factor=0.001)
    rates = run(scheduler, epochs * length)
    assert rates[0] == 0.0
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-15)


def test_state_is_the_position_only_and_an_extended_run_follows_the_longer_curve():
    first = WarmupCosineLR(sgd(), total_steps=20, warmup_steps=5)
    run(first, 12)
    assert first.state_dict() == {'last_step': 12}
    longer = WarmupCosineLR(sgd(), total_steps=40, warmup_steps=5)
    whole = run(WarmupCosineLR(sgd(), total_steps=40, warmup_steps=5), 40)
    longer.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(run(longer, 28), whole[12:])


def test_start_factor_groups_and_end():
    optimizer = sgd(2.0)
    optimizer.add_param_group(dict(params=[torch.nn.Parameter(torch.ones(1))], lr=1.0))
    scheduler = WarmupCosineLR(optimizer, total_steps=10, warmup_steps=4, start_factor=0.5, end_factor=0.1)
    assert [g['lr'] for g in optimizer.param_groups] == [1.0, 0.5]
    scheduler.go_to(4)
    assert [g['lr'] for g in optimizer.param_groups] == [2.0, 1.0]
    scheduler.go_to(100)  # past the end the rate stays where it ended
    assert [g['lr'] for g in optimizer.param_groups] == pytest.approx([0.2, 0.1])


def test_warmup_longer_than_the_run_warns():
    with pytest.warns(UserWarning, match='never reaches its peak'):
        WarmupCosineLR(sgd(), total_steps=5, warmup_steps=10)


SCHEDULES = [
    dict(type='MultiStepLR', milestones=[1], by_epoch=True),
    dict(type='MultiStepLR', milestones=[2], by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=8, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=2, by_epoch=True, convert_to_iter_based=True),
    [dict(type='LinearLR', start_factor=0.1, end=4, by_epoch=False), dict(type='StepLR', step_size=1)],
    dict(type='ExponentialLR', gamma=0.5, by_epoch=True),
    dict(type='PolyLR', eta_min=0.0, by_epoch=False, end=16),
    dict(type='ConstantLR', factor=0.3, by_epoch=False, end=3),
    dict(type='WarmupCosineLR', warmup_epochs=1),
]


@HOOKS.register_module(force=True)
class GroupsSeen(Hook):
    """(name of the option, value in the fixed group, value in the other) before each iteration."""

    seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        groups = runner.optim_wrapper.param_groups
        fixed = next(g for g in groups if any(key.startswith('fixed_') for key in g))
        other = next(g for g in groups if not any(key.startswith('fixed_') for key in g))
        self.seen.append({name: (fixed[name], other[name]) for name in ('lr', 'momentum', 'weight_decay')})


def seen_in_a_run(tmp_path, schedule, optimizer=None, flag='fixed_lr'):
    GroupsSeen.seen = []
    cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'log_level': 'ERROR', 'train_cfg.max_epochs': 2})
    cfg.work_dir, cfg.param_scheduler, cfg.custom_hooks = str(tmp_path), schedule, [dict(type='GroupsSeen')]
    cfg.optim_wrapper.optimizer = optimizer or dict(type='SGD', lr=0.5, momentum=0.8, weight_decay=0.1)
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'neck': {flag: True}})
    train(cfg)
    return GroupsSeen.seen


@pytest.mark.parametrize('schedule', SCHEDULES, ids=lambda s: (s if isinstance(s, dict) else s[0])['type'])
def test_a_fixed_rate_stays_under_every_schedule(tmp_path, schedule):
    rates = [values['lr'] for values in seen_in_a_run(tmp_path, schedule)]
    assert len(rates) == 16
    assert {fixed for fixed, _ in rates} == {0.5 * 8 / 256}
    assert len({other for _, other in rates}) > 1


def test_momentum_and_decay_may_be_fixed_too(tmp_path):
    momentum = dict(type='MultiStepMomentum', milestones=[1], gamma=0.5)
    values = [v['momentum'] for v in seen_in_a_run(tmp_path / 'm', momentum, flag='fixed_momentum')]
    assert (values[0], values[-1]) == ((0.8, 0.8), (0.8, 0.4))
    decay = dict(type='MultiStepParamScheduler', param_name='weight_decay', milestones=[1], gamma=0.5)
    values = [v['weight_decay'] for v in seen_in_a_run(tmp_path / 'w', decay, flag='fixed_weight_decay')]
    assert (values[0], values[-1]) == ((0.1, 0.1), (0.1, 0.05))


def test_a_fixed_rate_stays_after_a_resume(tmp_path):
    schedule = dict(type='MultiStepLR', milestones=[1])
    whole = seen_in_a_run(tmp_path, schedule)
    (tmp_path / 'epoch_2.pth').unlink()
    GroupsSeen.seen = []
    cfg = load_config(tmp_path / 'config.py')
    train(cfg, resume=True)
    assert GroupsSeen.seen == whole[8:]


def test_a_schedule_with_a_peak_of_its_own_does_not_pass_over_the_rates_of_groups(tmp_path):
    cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'log_level': 'ERROR', 'train_cfg.max_epochs': 2})
    cfg.work_dir = str(tmp_path)
    cfg.param_scheduler = dict(type='OneCycleLR', eta_max=0.1, total_steps=16, by_epoch=False)
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=0.5)
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(neck=dict(lr_mult=10.0)))
    with pytest.raises(ValueError, match='OneCycleLR gives all parameter groups one learning rate'):
        train(cfg)


@pytest.mark.parametrize(
    'settings',
    [dict(end_factor=math.nan), dict(start_factor=-0.1), dict(warmup_epochs=math.nan), dict(warmup_epochs=-1)],
)
def test_a_curve_has_finite_ends(settings):
    with pytest.raises(ValueError, match=f'WarmupCosineLR.{next(iter(settings))}='):
        WarmupCosineLR.build_iter_from_epoch(sgd(), 2, 10, **settings)
