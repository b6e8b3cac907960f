import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from mmkernel.evaluation import linear_probe, logistic_regression, scale_features


def clusters(train=200, test=60, classes=4, noise=0.3, width=6):
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator)
    labels = torch.arange(train + test) % classes
    points = centres[labels] + noise * torch.randn(train + test, width, generator=generator)
    return points[:train], labels[:train], points[train:], labels[train:]


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


def test_logistic_regression_is_scikit_learns():
    train_x, train_y, test_x, test_y = clusters(noise=2.0)
    for scaling in ('none', 'l2', 'standard'):
        a, b = scale_features(train_x, test_x, scaling)
        expected = LogisticRegression(C=3.0, max_iter=3000, tol=1e-8)
        expected = expected.fit(a.double().numpy(), train_y.numpy()).score(b.double().numpy(), test_y)
        assert logistic_regression(train_x, train_y, test_x, test_y, 3.0, scaling)['top1'] == pytest.approx(
            100 * expected
        )


def test_two_classes_have_one_vector_as_with_scikit_learn():
    """Two vectors under the same penalty would halve it: with a strong one the margins tell."""
    train_x, train_y, test_x, test_y = clusters(noise=2.0, classes=2, width=30, train=40)
    for strength in (1e-3, 0.1, 10.0):
        fit = LogisticRegression(C=strength, max_iter=3000, tol=1e-8).fit(train_x.double().numpy(), train_y.numpy())
        found = logistic_regression(train_x, train_y, test_x, test_y, strength, 'none')
        assert found['top1'] == pytest.approx(100 * fit.score(test_x.double().numpy(), test_y.numpy()))


def test_two_classes_and_classes_without_a_training_image():
    train_x, train_y, test_x, test_y = clusters(noise=0.05, classes=3)
    kept = train_y != 1
    result = logistic_regression(train_x[kept], train_y[kept], test_x, test_y)
    assert result['top1'] == pytest.approx(100 * (test_y != 1).float().mean().item())


def test_a_class_without_a_training_image_is_not_among_the_first_five_either():
    train_x, train_y, test_x, test_y = clusters(noise=0.05, classes=4)
    kept = train_y < 2
    result = logistic_regression(train_x[kept], train_y[kept], test_x, test_y)
    assert result['top5'] == pytest.approx(100 * (test_y < 2).float().mean().item())


@pytest.mark.parametrize('probe', [linear_probe, logistic_regression])
def test_training_and_test_features_of_two_precisions(probe):
    train_x, train_y, test_x, test_y = clusters(noise=0.05)
    assert probe(train_x, train_y, test_x.double(), test_y)['top1'] == 100


def test_a_probe_that_diverged_is_right_about_nothing():
    train_x, train_y, test_x, test_y = clusters()
    assert linear_probe(1e25 * train_x, train_y, test_x, test_y, epochs=2)['top1'] == 0


@pytest.mark.parametrize('scaling', ['l2', 'standard'])
@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_scaled_features_have_no_units(scaling, scale):
    train_x, _, test_x, _ = clusters()
    expected = scale_features(train_x, test_x, scaling)
    for a, b in zip(scale_features(scale * train_x, scale * test_x, scaling), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_one_class_is_refused():
    train_x, train_y, test_x, test_y = clusters()
    with pytest.raises(ValueError, match='expected at least 2 classes'):
        logistic_regression(train_x, torch.zeros_like(train_y), test_x, test_y)


def test_scalings():
    train_x, _, test_x, _ = clusters()
    train_x[:, 0] = 3.0  # never changes
    a, b = scale_features(train_x, test_x, 'standard')
    torch.testing.assert_close(a[:, 1:].mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(a[:, 1:].std(0, correction=0), torch.ones(5))
    assert (a[:, 0] == 0).all()
    assert (b[:, 0] == 0).all()
    torch.testing.assert_close(scale_features(train_x, test_x, 'l2')[1].norm(dim=1), torch.ones(60))
    with pytest.raises(ValueError, match="scaling is one of 'none', 'l2', 'standard', got 'l1'"):
        scale_features(train_x, test_x, 'l1')
