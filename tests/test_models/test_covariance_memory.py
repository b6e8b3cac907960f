"""Covariances that are remembered: three steps of the authors' code, state that obeys a step, bad input."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkernel.losses import log_determinants, memory_energy, second_moment
from mmkernel.models import LogDetHead, QuadraticMemoryHead

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-5}
every_dtype = pytest.mark.parametrize('dtype', TOLERANCES, ids=str)


def three_steps(g, head, dtype, device, loss, names):
    """Losses and gradients of consecutive calls, each committed."""
    head, tolerance = head.to(device, dtype), TOLERANCES[dtype]
    for step in range(3):
        z = [torch.from_numpy(g[f'in_{name}'][step]).to(device, dtype).requires_grad_() for name in names]
        value = loss(head, *z)
        value.backward()
        head.commit()
        assert value.item() == pytest.approx(float(g['out_losses'][step]), rel=tolerance)
        for x, name in zip(z, names, strict=True):
            expected = g[f'grad_{name}'][step]
            assert np.abs(x.grad.cpu().numpy() - expected).max() <= 10 * tolerance * np.abs(expected).max(), name
        yield head


@every_dtype
def test_quadratic_memory(golden, dtype, device):
    """One online view; the other is its target, which the memory does not see."""
    g = golden('tico_lightly_3steps_n16_q8')
    head = QuadraticMemoryHead(float(g['hp_beta']), contrast_weight=float(g['hp_rho']), in_dim=8)
    steps = three_steps(g, head, dtype, device, lambda h, a, b: h(a, target=b), ('za', 'zb'))
    for step, head in enumerate(steps):
        np.testing.assert_allclose(head.covariance.cpu(), g['out_C'][step], rtol=0, atol=TOLERANCES[dtype])


@every_dtype
def test_log_determinants(golden, dtype, device):
    g = golden('corinfomax_3steps_n24_q6')
    head = LogDetHead(
        0.0, momentum=float(g['hp_la_R']), mean_momentum=float(g['hp_la_mu']), eps=float(g['hp_eps']),
        initial=float(g['hp_R_ini']), in_dim=6,
    )  # fmt: skip
    *_, head = three_steps(g, head, dtype, device, lambda h, x, y: h(x, y), ('z1', 'z2'))
    np.testing.assert_allclose(head.covariances[0].cpu(), g['out_R1'], rtol=0, atol=10 * TOLERANCES[dtype])
    np.testing.assert_allclose(head.means[0].cpu(), g['out_mu1'], rtol=0, atol=10 * TOLERANCES[dtype])


def cloud(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_the_memory_is_the_quadratic_kernel_against_the_past():
    """rho (1 - beta) sum_j beta^(i-j) mean (u.v)^2, u of batch i and v of batch j."""
    batches = [F.normalize(cloud(1, 10, 4, seed=s), dim=-1) for s in range(3)]
    C = torch.zeros(4, 4, dtype=torch.float64)
    for u in batches:
        C = 0.8 * C + 0.2 * second_moment(u)
    expected = sum(0.2 * 0.8 ** (2 - j) * (batches[2] @ u.mT).square().mean() for j, u in enumerate(batches))
    torch.testing.assert_close(memory_energy(batches[2], C), expected)


def test_a_centred_covariance_of_both_views():
    """As stable-pretraining computes it: views stacked, divisor 2n - 1; the alignment 2 - 2 cos."""
    x, y = F.normalize(cloud(2, 10, 4), dim=-1)
    C = second_moment(torch.stack([x, y]), centered=True)
    torch.testing.assert_close(C, torch.cov(torch.cat([x, y]).T))
    contrasts = [((z @ C) * z).sum(1).mean() for z in (x, y)]
    for views, contrast in ((1, contrasts[0]), (None, (contrasts[0] + contrasts[1]) / 2)):
        head = QuadraticMemoryHead(0.9, 1.0, 20.0, centered=True, contrast_views=views, in_dim=4).double()
        torch.testing.assert_close(head(x, y), 2 - 2 * (x * y).sum(1).mean() + 20 * 0.1 * contrast)


def test_log_determinants_are_quadratic_near_isotropy():
    """-log det(I + E) = -tr E + ||E||^2 / 2 + O(E^3)."""
    z = cloud(1, 4000, 3)
    E = z[0].T @ z[0] / 4000 - torch.eye(3, dtype=torch.float64)
    zero = torch.zeros(1, 3, dtype=torch.float64)
    loss, R, m = log_determinants(z, torch.eye(3).double()[None], zero, 0.0, 1.0, 0.0)
    assert 3 * loss.item() == pytest.approx((-E.trace() + E.square().sum() / 2).item(), abs=E.norm().item() ** 3)
    torch.testing.assert_close(R[0], E + torch.eye(3).double())
    torch.testing.assert_close(m, zero)


HEADS = [lambda: QuadraticMemoryHead(in_dim=4).double(), lambda: LogDetHead(in_dim=4).double()]
every_head = pytest.mark.parametrize('make', HEADS, ids=['quadratic', 'log det'])


@every_head
def test_state_obeys_the_step_and_a_resume(make):
    head, first, second = make(), cloud(2, 12, 4), cloud(2, 12, 4, seed=1)
    before = copy.deepcopy(head.state_dict())
    torch.testing.assert_close(head(*first), head(*first), rtol=0, atol=0)
    for key, value in before.items():
        assert torch.equal(head.state_dict()[key], value)  # loss is pure
    head.commit(real=torch.tensor(False))
    for key, value in before.items():
        assert torch.equal(head.state_dict()[key], value)
    head(*first)
    with torch.no_grad():
        head.eval()(*second)  # an evaluation leaves nothing behind
    head.train().commit(real=torch.tensor(True))
    assert any(not torch.equal(head.state_dict()[key], value) for key, value in before.items())
    resumed = make()
    resumed.load_state_dict(copy.deepcopy(head.state_dict()))
    torch.testing.assert_close(resumed(*second), head(*second), rtol=0, atol=0)


@every_head
@pytest.mark.parametrize('dtype', TOLERANCES, ids=str)
@pytest.mark.parametrize('value', [0.0, 1.0, 1e4])
def test_collapsed_rows_for_many_steps(make, dtype, value):
    head = make().to(dtype)
    for _ in range(8):
        z = torch.full((2, 12, 4), value, dtype=dtype, requires_grad=True)
        loss = head(*z)
        loss.backward()
        head.commit()
        assert loss.isfinite()
        assert z.grad.isfinite().all()
    good = cloud(12, 4).to(dtype)
    assert head(good, good) < loss


def test_bad_input():
    z = cloud(3, 8, 4)
    with pytest.raises(ValueError, match='covariances of 2 views, the batch has 3: set views=3'):
        LogDetHead(in_dim=4)(*z)
    with pytest.raises(ValueError, match='made for embeddings of width 5'):
        QuadraticMemoryHead(in_dim=5)(*z)
    for factory, name in (
        (QuadraticMemoryHead, 'momentum'),
        (LogDetHead, 'mean_momentum'),
        (QuadraticMemoryHead, 'contrast_weight'),
        (LogDetHead, 'eps'),
    ):
        with pytest.raises(ValueError, match=f'{factory.__name__}.{name}=-1'):
            factory(**{name: -1.0}, in_dim=4)
