"""The warm-up and cosine schedule against the official curve."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmkernel.engine import WarmupCosineLR, lr_factor

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
