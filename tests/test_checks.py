import math

import pytest
import torch

from mmkernel.checks import check_distinct, check_numbers
from mmkernel.evaluation import linear_probe, linear_sweep, logistic_regression, low_shot_svm, semi_supervised
from mmkernel.evaluation.transfer_tasks import mlp_probe

DATA = (torch.eye(6), torch.arange(6) % 2) * 2


def test_what_passes():
    assert check_numbers(epochs=1, batch_size=256, whole=True) is None
    assert check_numbers(decay=(0.0, 1e-6), zero=True) is None
    assert check_numbers(scale=torch.tensor(2.0), weights=torch.ones(2)) is None
    assert check_distinct(seeds=(0, 1, 2), names=('a', 'b')) is None


@pytest.mark.parametrize('value', [0, -1, math.nan, math.inf, (0.1, -0.1), ()])
def test_numbers_that_are_none(value):
    with pytest.raises(ValueError, match='lr=.*; expected one or more finite numbers > 0'):
        check_numbers(lr=value)


@pytest.mark.parametrize(
    ('function', 'settings', 'said'),
    [
        (linear_probe, dict(epochs=0), 'epochs=0; expected one or more finite whole numbers > 0'),
        (linear_probe, dict(batch_size=0), 'batch_size=0'),
        (linear_probe, dict(lr=math.nan), 'lr=nan'),
        (linear_probe, dict(weight_decay=-1), 'weight_decay=-1; expected one or more finite numbers >= 0'),
        (logistic_regression, dict(strength=0.0), 'strength=0.0'),
        (linear_sweep, dict(epochs=-1), 'epochs=-1'),
        (linear_sweep, dict(lrs=(0.1, -1.0)), 'lrs=-1.0'),
        (linear_sweep, dict(lrs=()), 'lrs=nothing'),
        (linear_sweep, dict(weight_decays=(-1.0,)), 'weight_decays=-1.0'),
        (linear_sweep, dict(seeds=(0, 0)), 'seeds=0, 0; expected one or more different ones'),
        (linear_sweep, dict(seeds=()), 'seeds=nothing'),
        (mlp_probe, dict(hidden=0), 'hidden=0'),
    ],
)
def test_probes_refuse_them(function, settings, said):
    with pytest.raises(ValueError, match=said):
        function(*DATA, **settings)


def test_draws_of_few_images():
    data = (torch.eye(6), torch.eye(6).int()) * 2
    with pytest.raises(ValueError, match='draws=0'):
        low_shot_svm(*data, shots=(1,), draws=0)
    with pytest.raises(ValueError, match='shots=1, 1; expected one or more different'):
        low_shot_svm(*data, shots=(1, 1))
    with pytest.raises(ValueError, match='seeds=0, 0'):
        semi_supervised({}, None, [dict(per_class=1)], seeds=(0, 0))
