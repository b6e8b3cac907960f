"""Many heads at once are the heads one by one, end at scikit-learn's optimum, and never see the test set before the end."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clusters import clusters
from sklearn.linear_model import LogisticRegression

from mmkernel.evaluation import linear_probe, linear_sweep, logistic_regression, train_heads
from mmkernel.evaluation.inputs import scaling_of

CPU = torch.device('cpu')


def none(x):
    return x


def test_heads_together_are_heads_alone():
    x, y, *_ = clusters()
    scales = [none, scaling_of(x, 'l2')]
    grid = [(0.1, 0.0), (1.0, 1e-2), (3.0, 1e-3)]
    weight, bias = train_heads(x, y, scales, [0, 3], grid, 4, 3, 64, CPU)
    assert weight.shape == (2, 6, 3, 4)
    for s, (scale, seed) in enumerate(zip(scales, [0, 3], strict=True)):
        for g, setting in enumerate(grid):
            alone, offset = train_heads(x, y, [scale], [seed], [setting], 4, 3, 64, CPU)
            torch.testing.assert_close(weight[s, :, g], alone[0, :, 0])
            torch.testing.assert_close(bias[s, g], offset[0, 0])


def test_rows_are_a_selection_without_a_copy():
    x, y, *_ = clusters()
    rows = torch.arange(0, 200, 3)
    chosen = train_heads(x, y, [none], [0], [(1.0, 0.0)], 4, 2, 16, CPU, rows=rows)
    copied = train_heads(x[rows], y[rows], [none], [0], [(1.0, 0.0)], 4, 2, 16, CPU)
    assert torch.equal(chosen[0], copied[0])


def test_one_head_is_what_autograd_trains():
    x, y, *_ = clusters(train=90)
    weight, bias = train_heads(x, y, [none], [7], [(0.5, 1e-2)], 4, 2, 32, CPU)
    generator = torch.Generator().manual_seed(7)
    layer = torch.nn.Linear(6, 4)
    with torch.no_grad():
        layer.weight.copy_(0.01 * torch.randn(6, 1, 4, generator=generator)[:, 0].T)
        layer.bias.zero_()
    groups = [dict(params=[layer.weight], weight_decay=1e-2), dict(params=[layer.bias])]
    optimizer = torch.optim.SGD(groups, lr=0.5, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)  # 3 steps an epoch, the last one of 26 images
    for _ in range(2):
        for rows in torch.randperm(90, generator=generator).split(32):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(weight[0, :, 0].T, layer.weight.detach())
    torch.testing.assert_close(bias[0, 0], layer.bias.detach())


def test_the_optimum_is_scikit_learns():
    """Decay wd of the mean loss is C = 1 / (wd N): the same convex problem."""
    x, y, *_ = clusters()
    x, decay = x.double(), 3e-2
    fit = LogisticRegression(C=1 / (decay * len(x)), tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
    expected = torch.tensor(fit.coef_)
    weight, _ = train_heads(x, y, [none] * 2, [0, 1], [(0.3, decay), (0.8, decay)], 4, 1500, len(x), CPU)
    for s in range(2):
        for g in range(2):
            centred = weight[s, :, g] - weight[s, :, g].mean(1, keepdim=True)  # what all classes share changes no loss
            torch.testing.assert_close(centred.T, expected, atol=1e-5, rtol=1e-4)


def test_sweep_chooses_on_held_out_images_and_reports_the_spread():
    train_x, train_y, test_x, test_y = clusters(train=400, noise=1.5)
    found = linear_sweep(train_x, train_y, test_x, test_y, (0.1, 1.0), (0.0, 1e-2), epochs=8, seeds=(0, 1))
    assert found['heads'] == 12
    assert len(found['values']) == 2
    assert found['top1'] == pytest.approx(np.mean(found['values']))
    assert found['top5'] == 100
    assert set(found['by_scaling']) == {'none', 'l2', 'standard'}
    assert max(found['by_scaling'].values()) == found['held_out']
    again = linear_sweep(train_x, train_y, test_x, 3 - test_y, (0.1, 1.0), (0.0, 1e-2), epochs=8, seeds=(0, 1))
    assert again['chosen'] == found['chosen']  # wrong test labels change the figure only
    assert again['top1'] < 30 < found['top1']


def test_sweep_leaves_the_random_state_alone_and_repeats():
    data = clusters()
    state = torch.get_rng_state()
    first = linear_sweep(*data, (1.0,), (0.0,), ('none',), epochs=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert linear_sweep(*data, (1.0,), (0.0,), ('none',), epochs=2) == first


def test_a_head_that_diverges_loses_and_disturbs_no_other():
    train_x, train_y, test_x, test_y = clusters()
    train_x, test_x = 1e10 * train_x, 1e10 * test_x
    found = linear_sweep(train_x, train_y, test_x, test_y, (1.0, 1e30), (0.0,), ('none', 'l2'), epochs=3)
    assert found['chosen']['lr'] == 1.0
    assert found['top1'] > 50
    with pytest.raises(ValueError, match='Every head has diverged'):
        linear_sweep(train_x, train_y, test_x, test_y, (1e30,), (0.0,), ('none',), epochs=3)


def test_edge_of_the_grid_is_told():
    found = linear_sweep(*clusters(noise=0.3), (1e-6, 1e-5), (0.0,), ('none',), epochs=2)
    assert found['at_edge'] == ['lr']


def test_a_constant_column_and_a_class_absent_from_training():
    train_x, train_y, test_x, test_y = clusters(noise=0.1)
    train_x[:, 2] = 5.0
    kept = train_y != 1
    found = linear_sweep(train_x[kept], train_y[kept], test_x, test_y, (1.0,), (0.0,), epochs=20)
    assert found['top1'] == pytest.approx(75)


@pytest.mark.parametrize('probe', [linear_probe, logistic_regression])
def test_separable_classes(probe):
    result = probe(*clusters(noise=0.05))
    assert result['top1'] == result['top5'] == 100


def test_probe_is_a_function_of_its_seed_alone():
    data = clusters(noise=2.0)
    torch.manual_seed(1)
    first = linear_probe(*data, epochs=3, batch_size=16)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert linear_probe(*data, epochs=3, batch_size=16) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert any(linear_probe(*data, epochs=3, batch_size=16, seed=seed) != first for seed in (1, 2, 3))


def test_probe_follows_the_published_recipe():
    """Full batches, so that the order of images does not matter: SGD .9 written out, cosine per epoch."""
    train_x, train_y, test_x, test_y = clusters(noise=2.0)
    epochs, lr, decay = 7, 0.4, 1e-2
    weight = torch.zeros(6, 4).normal_(0, 0.01, generator=torch.Generator().manual_seed(5)).reshape(4, 6)
    bias = torch.zeros(4)
    speed = [torch.zeros(4, 6), torch.zeros(4)]
    for epoch in range(epochs):
        rate = 0.5 * lr * (1 + np.cos(np.pi * epoch / epochs))
        error = (F.softmax(train_x @ weight.T + bias, 1) - F.one_hot(train_y, 4)) / len(train_x)
        gradient = [error.T @ train_x + decay * weight, error.sum(0) + decay * bias]
        speed = [0.9 * v + g for v, g in zip(speed, gradient, strict=True)]
        weight, bias = weight - rate * speed[0], bias - rate * speed[1]
    expected = 100 * ((test_x @ weight.T + bias).argmax(1) == test_y).float().mean().item()
    result = linear_probe(
        train_x, train_y, test_x, test_y, epochs, batch_size=200, lr=lr, weight_decay=decay, seed=5
    )  # fmt: skip
    assert result['top1'] == pytest.approx(expected)
    assert result['best_top1'] >= result['top1']


@pytest.mark.parametrize('probe', [linear_probe, logistic_regression])
def test_training_and_test_features_of_two_precisions(probe):
    train_x, train_y, test_x, test_y = clusters(noise=0.05)
    assert probe(train_x, train_y, test_x.double(), test_y)['top1'] == 100


def test_a_probe_that_diverged_is_right_about_nothing():
    train_x, train_y, test_x, test_y = clusters()
    assert linear_probe(1e25 * train_x, train_y, test_x, test_y, epochs=2)['top1'] == 0
