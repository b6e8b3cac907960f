"""DBN and ShuffledDBN: white groups, gradients, the order of channels, and what is random."""

import pytest
import torch
from launches import Launches
from multiprocess import run_processes

from mmkernel.models import DBN, MLPNeck, ShuffledDBN


def rows(n=40, q=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, q, dtype=torch.float64, generator=generator)
    return x @ torch.randn(q, q, dtype=torch.float64, generator=generator) + 2


def covariance(y):
    y = y - y.mean(0)
    return y.T @ y / len(y)


def test_groups_are_white():
    C = covariance(DBN(12, groups=3, eps=0.0)(rows()))
    for g in range(3):
        torch.testing.assert_close(C[4 * g :][:4, 4 * g :][:, :4], torch.eye(4, dtype=torch.float64))
    assert C[:4, 4:].abs().max() > 0.05


def test_groups_of_one_are_batch_norm():
    x = rows()
    expected = torch.nn.functional.batch_norm(x, None, None, training=True, eps=1e-5)
    torch.testing.assert_close(DBN(12, groups=12, eps=1e-5)(x), expected)


def test_it_is_the_symmetric_root():
    x = rows()
    S = covariance(x)
    values, U = torch.linalg.eigh(S)
    torch.testing.assert_close(DBN(12, groups=1, eps=0.0)(x), (x - x.mean(0)) @ (U / values.sqrt()) @ U.T)


@pytest.mark.parametrize('iterations', [None, 3])
def test_gradient(iterations):
    x = rows(10, 4).requires_grad_()
    assert torch.autograd.gradcheck(DBN(4, groups=2, iterations=iterations), x)


def test_gradient_at_white_input():
    """All eigenvalues equal: a textbook backward of eigh divides by zero here."""
    x = DBN(4, groups=1, eps=0.0)(rows(10, 4)).detach().requires_grad_()
    assert torch.autograd.gradcheck(DBN(4, groups=1), x)


def test_newton_schulz_variant_approaches_the_exact_one():
    x = rows()
    exact = DBN(12, groups=6)(x)
    few, many = (float((DBN(12, groups=6, iterations=n)(x) - exact).abs().max()) for n in (2, 12))
    assert many < few
    assert many < 1e-3


@pytest.mark.parametrize('count, groups', [(24, 1), (23, 2), (8, 3)])
def test_fewest_groups(count, groups):
    x = rows(count)
    assert torch.equal(DBN(12, groups=None)(x), DBN(12, groups=groups)(x))


def test_shuffled_groups_return_to_their_channels():
    norm = ShuffledDBN(12, groups=3, eps=0.0)
    x = rows()
    first, second = norm(x), norm(x)
    assert not torch.allclose(first, second)
    # each channel of the output belongs to the same channel of the input
    for y in (first, second):
        cosine = torch.cosine_similarity((x - x.mean(0)).T, y.T)
        assert (cosine > 0).all()
    assert norm.passes == 2


def test_shuffles_replay_from_the_state():
    norm, x = ShuffledDBN(12, groups=3), rows()
    state = torch.random.get_rng_state()
    norm(x)
    resumed = ShuffledDBN(12, groups=3)
    resumed.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), resumed(x), rtol=0, atol=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    norm.eval()
    torch.testing.assert_close(norm(x), norm(x), rtol=0, atol=0)
    assert norm.passes == 2


def test_shuffles_follow_the_seed():
    x = rows()
    outcomes = [ShuffledDBN(12, groups=3, seed=seed)(x) for seed in (0, 1, 2**32 - 1, 0)]
    assert torch.equal(outcomes[0], outcomes[3])
    assert not any(torch.allclose(a, b) for a, b in ((outcomes[0], outcomes[1]), (outcomes[0], outcomes[2])))
    with pytest.raises(ValueError, match=r'ShuffledDBN.seed=-1; expected'):
        ShuffledDBN(12, groups=3, seed=-1)


@pytest.mark.parametrize('kind', ['DBN', 'ShuffledDBN'])
def test_as_the_last_norm_of_a_neck(kind):
    neck = MLPNeck((8, 12), in_dim=4, last_norm=dict(type=kind, groups=3, eps=0.0))
    C = covariance(neck(torch.randn(60, 4)))
    torch.testing.assert_close(C.diagonal(), torch.ones(12), rtol=1e-3, atol=1e-3)


def on_two(rank, world_size):
    torch.manual_seed(rank)  # nothing global decides the shuffle
    x = rows()[20 * rank :][:20]
    norms = [kind(12, groups=3, eps=0.0) for kind in (DBN, ShuffledDBN)]
    return torch.stack([torch.stack([norm(x), norm(x)]) for norm in norms])


def test_statistics_are_those_of_one_process_and_shuffles_the_same_on_all():
    x, found = rows(), run_processes(on_two, 2)
    for k, kind in enumerate((DBN, ShuffledDBN)):
        for rank, own in enumerate(found):
            alone = kind(12, groups=3, eps=0.0)
            for y in own[k]:  # whitened by its own rows, in the series of shuffles that one process draws
                torch.testing.assert_close(y, alone(x[20 * rank :][:20]))
                torch.testing.assert_close(covariance(y).diagonal(), torch.ones(12, dtype=torch.float64))
        union = kind(12, groups=3, eps=0.0)(x)
        assert (torch.cat([own[k, 0] for own in found]) - union).abs().max() > 0.1  # not by those of the union


def test_half_precision_is_whitened_in_single():
    y = DBN(12, groups=3)(rows().bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), DBN(12, groups=3)(rows().bfloat16().double()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('kind', [DBN, ShuffledDBN])
@pytest.mark.parametrize('iterations', [None, 5])
@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_nan_and_infinity_come_out_as_nan_without_an_error(kind, iterations, bad):
    x = rows().requires_grad_()
    with torch.no_grad():
        x[3, 4] = bad
    y = kind(12, groups=3, iterations=iterations)(x)
    assert y.isnan().any(1).all()
    assert y.isfinite().all(0).sum() == 8  # the other two groups
    y.sum().backward()


@pytest.mark.parametrize('point', [0.0, 0.5])
def test_one_point_is_finite(point):
    x = torch.full((20, 12), point, requires_grad=True)
    y = DBN(12, groups=3)(x)
    y.square().sum().backward()
    assert y.abs().max() < 0.1
    assert x.grad.isfinite().all()


@pytest.mark.parametrize('kind, most', [(DBN, 41), (ShuffledDBN, 53)])
def test_launches(kind, most):
    norm, x = kind(12, groups=3), rows().requires_grad_()
    upstream = torch.ones_like(x)
    with Launches() as launches:
        norm(x).backward(upstream)
    assert launches.total <= most, launches
    assert launches.host_reads == 0


def test_bad_input():
    with pytest.raises(ValueError, match='cuts 12 channels into groups of one width, got groups = 5'):
        DBN(12, groups=5)
    with pytest.raises(ValueError, match='iterations'):
        DBN(12, groups=3, iterations=0)
    with pytest.raises(ValueError, match='groups of 12 channels, got a batch of 12 rows'):
        DBN(12, groups=1, eps=0.0)(rows(12))
    with pytest.raises(ValueError, match='batch of 1 rows'):
        DBN(12, groups=12)(rows(1))
