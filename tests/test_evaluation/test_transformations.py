import pytest
import torch

from mmkernel.evaluation import mlp_probe


def rings(count=400, seed=0):
    """Classes that no line divides: inside and outside of a circle; one column that never changes."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    labels = (points.norm(dim=1) > 1.2).long()
    return torch.cat([points, torch.full((count, 1), 7.0)], 1), labels


def test_what_no_line_divides_and_the_commonest_answer():
    (train_x, train_y), (test_x, test_y) = rings(), rings(100, 1)
    result = mlp_probe(train_x, train_y, test_x, test_y, hidden=64, epochs=40, batch_size=32, lr=1e-2)
    assert result['top1'] > 90
    assert result['majority'] == pytest.approx(100 * float((test_y == train_y.mode().values).double().mean()))
    assert result['top1'] > result['majority'] + 20


def test_features_without_information_score_like_the_commonest_answer():
    (train_x, train_y), (test_x, test_y) = rings(), rings(100, 1)
    result = mlp_probe(torch.ones_like(train_x), train_y, torch.ones_like(test_x), test_y, hidden=8, epochs=30)
    assert result['top1'] == result['majority']


def test_depends_on_its_seed_alone():
    data = (*rings(), *rings(50, 1))
    options = dict(hidden=8, epochs=2)
    torch.manual_seed(0)
    first = mlp_probe(*data, **options)
    state = torch.get_rng_state()
    assert mlp_probe(*data, **options) == first
    assert torch.equal(torch.get_rng_state(), state)
