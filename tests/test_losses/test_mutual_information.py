"""Bounds on mutual information: correlated Gaussians with known information, limits, and how they relate."""

import math

import pytest
import torch

from mmkernel.losses.mutual_information import (
    dv_bound,
    infonce_bound,
    interpolated_bound,
    js_bound,
    nwj_bound,
    tuba_bound,
)

every_bound = pytest.mark.parametrize(
    'bound',
    [infonce_bound, dv_bound, tuba_bound, nwj_bound, js_bound, lambda F: interpolated_bound(F, 0.5)],
    ids=['infonce', 'dv', 'tuba', 'nwj', 'js', 'interpolated'],
)


def log_ratio(correlation, K, seed):
    """log p(x, y) / (p(x) p(y)) of all pairs of K draws of correlated Gaussians: the optimal critic."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(K, dtype=torch.float64, generator=generator)
    noise = torch.randn(K, dtype=torch.float64, generator=generator)
    x = correlation * y + math.sqrt(1 - correlation**2) * noise
    y, x, r = y[:, None], x[None, :], correlation
    return -0.5 * math.log(1 - r**2) - (r**2 * (x**2 + y**2) - 2 * r * x * y) / (2 * (1 - r**2))


def mean_over_draws(bound, correlation, K=256, draws=60):
    return float(torch.stack([bound(log_ratio(correlation, K, seed)) for seed in range(draws)]).mean())


@pytest.mark.parametrize('correlation', [0.5, 0.9])
def test_gaussians_with_the_optimal_critic(correlation):
    information = -0.5 * math.log(1 - correlation**2)  # 0.1438 and 0.8304 nats
    estimates = dict(
        nwj=lambda F: nwj_bound(1 + F),
        tuba=lambda F: tuba_bound(F + 0.3, 0.3),
        js=js_bound,
        dv=dv_bound,
        infonce=infonce_bound,
    )
    for name, bound in estimates.items():
        assert mean_over_draws(bound, correlation) == pytest.approx(information, abs=0.02), name
    assert mean_over_draws(infonce_bound, correlation) < information + 0.005


def test_infonce_cannot_exceed_the_log_of_the_batch():
    F = torch.eye(8, dtype=torch.float64) * 100
    assert infonce_bound(F).item() == pytest.approx(math.log(8))
    assert nwj_bound(1 + F).item() > math.log(8)


def test_infonce_is_cross_entropy():
    F = torch.randn(6, 6, dtype=torch.float64)
    entropy = torch.nn.functional.cross_entropy(F, torch.arange(6))
    torch.testing.assert_close(infonce_bound(F), math.log(6) - entropy)


def test_nwj_by_hand():
    F = torch.randn(5, 5, dtype=torch.float64)
    off = F[~torch.eye(5, dtype=torch.bool)]
    torch.testing.assert_close(nwj_bound(F), F.diagonal().mean() - (off - 1).exp().mean())
    torch.testing.assert_close(dv_bound(F), F.diagonal().mean() - off.exp().mean().log())


def test_jensen_shannon_has_the_value_of_nwj_and_its_own_gradient():
    F = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    value = js_bound(F)
    torch.testing.assert_close(value, nwj_bound(1 + F))
    (gradient,) = torch.autograd.grad(value, F)
    expected = -torch.sigmoid(F) / (5 * 4)
    expected = expected - expected.diagonal().diag() + torch.sigmoid(-F).diagonal().diag() / 5
    torch.testing.assert_close(gradient, expected)


def test_interpolation_at_zero_is_tuba():
    F, log_a = torch.randn(6, 6, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    expected = tuba_bound(F, log_a)
    torch.testing.assert_close(interpolated_bound(F, 0.0, log_a), expected)
    torch.testing.assert_close(interpolated_bound(F, 1e-12, log_a), expected)


def test_interpolation_at_one_is_infonce_over_one_sample_less():
    F = torch.randn(5, 5, dtype=torch.float64)
    values = []
    for i in range(5):
        for left_out in range(5):
            if left_out != i:
                kept = [k for k in range(5) if k != left_out]
                values.append(F[i, i] - F[i, kept].logsumexp(0) + math.log(4))
    torch.testing.assert_close(interpolated_bound(F, 1.0, log_baseline=3.0), torch.stack(values).mean())


def test_interpolation_lies_between_in_bias_on_gaussians():
    """InfoNCE saturates at log K; less of it, less bias."""
    information = -0.5 * math.log(1 - 0.99**2)  # 1.96 nats against log 8 = 2.08
    low, middle, high = (
        mean_over_draws(lambda F, a=alpha: interpolated_bound(F, a), 0.99, K=8, draws=400) for alpha in (0.0, 0.5, 1.0)
    )
    assert high < middle < information + 0.1
    assert abs(low - information) < abs(high - information)


@every_bound
def test_gradients(bound):
    F = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    if bound is not js_bound:  # straight-through by design
        assert torch.autograd.gradcheck(bound, F)


@pytest.mark.parametrize('alpha', [0.1, 0.999, 1.0])
def test_one_dominating_score_keeps_the_rest_of_its_row(alpha):
    """exp(200) is the whole sum of its row in float64: what is left without it must be summed apart."""
    F = torch.zeros(4, 4, dtype=torch.float64)
    F.fill_diagonal_(200.0)
    F.requires_grad_()
    value = interpolated_bound(F, alpha)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(F.grad).all()


@every_bound
def test_bad_scores(bound):
    with pytest.raises(ValueError, match='a square matrix'):
        bound(torch.randn(3, 4))
    with pytest.raises(ValueError, match='batch of at least'):
        bound(torch.randn(1, 1))


def test_bad_alpha():
    with pytest.raises(ValueError, match='alpha lies between'):
        interpolated_bound(torch.randn(4, 4), 1.5)
