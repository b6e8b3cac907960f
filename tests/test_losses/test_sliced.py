"""Slices and statistics of normality: the authors' figures, textbooks, blocks, several processes, bad input."""

import math

import numpy as np
import pytest
import torch
from multiprocess import run_processes

from mmkernel.kernels import layouts
from mmkernel.losses import center_scale_shape, draw_slices, epps_pulley, invariance, sliced, wasserstein
from mmkernel.losses.sliced import STATISTICS

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}
every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)
every_statistic = pytest.mark.parametrize('statistic', STATISTICS)


def check(g, dtype, device, loss, **names):
    """loss(inputs...) and its gradients: ``names`` maps inputs to the arrays of their gradients."""
    inputs = [torch.from_numpy(g[f'in_{name}']).to(device, dtype).requires_grad_() for name in names]
    value = loss(*inputs)
    assert value.item() == pytest.approx(float(g['out_loss']), rel=DTYPES[dtype])
    value.backward()
    for x, name in zip(inputs, names.values(), strict=True):
        expected = g[name]
        assert np.abs(x.grad.cpu().numpy() - expected).max() <= 10 * DTYPES[dtype] * np.abs(expected).max(), name


def tensor(g, name, like):
    return torch.from_numpy(g[f'in_{name}']).to(like)


@every_dtype
@pytest.mark.parametrize(
    'case, statistic',
    [('ep_n32_k7', 'epps_pulley'), ('cvm_n25_k4', 'cramer_von_mises'), ('ad_mid_n25_k4', 'anderson_darling')],
)
def test_columns(golden, case, statistic, dtype, device):
    g = golden(case)
    check(g, dtype, device, lambda x: STATISTICS[statistic](x).mean(), x='grad_x')
    of_columns = STATISTICS[statistic](torch.from_numpy(g['in_x']))
    np.testing.assert_allclose(of_columns.numpy(), g['out_stat'], rtol=1e-9)


@every_dtype
@pytest.mark.parametrize('case', ['sigreg_n32_q16_K64', 'sigreg_v3_n24_q8_K32', 'ddp2_sigreg_lejepa'])
def test_sliced_characteristic_functions(golden, case, dtype, device):
    """The file of two processes has their local gradients: twice those of the union."""
    g = dict(golden(case))
    g['grad_x'] = g['grad_x'] / g.get('hp_world_size', 1)
    options = dict(knots=int(g['hp_n_points']), t_max=float(g['hp_t_max']))
    check(g, dtype, device, lambda x: sliced(x, tensor(g, 'slices', x), **options), x='grad_x')


@every_dtype
def test_knots_on_both_sides_without_the_number_of_rows(golden, dtype, device):
    g = golden('bcs_n24_q8_K32')

    def loss(x, y):
        z = torch.stack([x, y])
        normality = sliced(z, tensor(g, 'slices', x), knots=int(g['hp_n_points']), two_sided=True, scale_by_rows=False)
        return float(g['hp_lam']) * normality + invariance(z, z, reduction='element')

    check(g, dtype, device, loss, z1='grad_z1', z2='grad_z2')


@every_dtype
def test_sliced_quantiles(golden, dtype, device):
    g = golden('swd_v2_n32_q8_K64')

    def loss(z):
        raw = tensor(g, 'slices_raw', z)
        return sliced(z, raw / (raw.norm(dim=0) + 1e-6), 'wasserstein', clamp=1e-4)

    check(g, dtype, device, loss, z='grad_z')


@every_dtype
def test_center_scale_and_shape(golden, dtype, device):
    g = golden('visreg_v2_n32_q8_K64')
    check(g, dtype, device, lambda z: sum(center_scale_shape(z, tensor(g, 'slices', z))), z='grad_z')
    parts = center_scale_shape(torch.from_numpy(g['in_z']), torch.from_numpy(g['in_slices']))
    for part, name in zip(parts, ('center', 'scale'), strict=False):
        assert part.item() == pytest.approx(float(g[f'out_{name}']), rel=1e-9)


def global_and_local(g, regulariser):
    weight = float(g['hp_lam'])

    def loss(glob, loc):
        z = torch.cat([glob, loc])
        return weight * regulariser(z) + (1 - weight) * invariance(z, glob, align='mean', reduction='element')

    return loss


@every_dtype
def test_the_mean_of_the_global_views(golden, dtype, device):
    g = golden('lejepa_lightly_2g3l_n16_q12')
    loss = global_and_local(g, lambda z: sliced(z, tensor(g, 'slices', z)))
    check(g, dtype, device, loss, glob='grad_glob', loc='grad_loc')


@every_dtype
def test_an_eps_of_the_shape_alone(golden, dtype, device):
    g = golden('visreg_lightly_2g2l_n20_q8')
    options = dict(eps=float(g['hp_eps']), scale_eps=0.0)

    def regulariser(z):
        quantiles = tensor(g, 'quantiles', z)
        return sum(center_scale_shape(z, tensor(g, 'slices', z), **options, quantiles=quantiles))

    check(g, dtype, device, global_and_local(g, regulariser), glob='grad_glob', loc='grad_loc')


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def phi(x):
    return 0.5 * (1 + math.erf(x / 2**0.5))


def test_against_integrals():
    """Cramer and Cramer-von Mises as integrals over F_N - Phi, Watson and Anderson-Darling by the books."""
    x, n = 0.8 * cloud(9, 1) + 0.3, 9
    t = torch.linspace(-12, 12, 400001, dtype=torch.float64)
    gap = (x <= t).double().mean(0) - torch.special.ndtr(t)
    assert STATISTICS['cramer'](x).item() == pytest.approx(torch.trapezoid(gap**2, t).item(), rel=1e-3)
    density = (-t.square() / 2).exp() / (2 * math.pi) ** 0.5
    integral = torch.trapezoid(gap**2 * density, t).item()
    assert STATISTICS['cramer_von_mises'](x).item() == pytest.approx(integral - 1 / (12 * n**2), rel=1e-3)
    mean = torch.trapezoid(gap * density, t).item()
    assert STATISTICS['watson'](x).item() == pytest.approx(integral - mean**2 - 1 / (12 * n**2), rel=1e-3)
    s = sorted(x.flatten().tolist())
    total = sum((2 * i + 1) * (math.log(phi(s[i])) + math.log(1 - phi(s[n - 1 - i]))) for i in range(n))
    assert STATISTICS['anderson_darling'](x).item() == pytest.approx(-n - total / n, rel=1e-12)


@every_dtype
def test_anderson_darling_far_out(dtype):
    """The slope of log Phi is |x| + 1 / |x| - ... at a far x < 0, where that of torch loses its digits and then vanishes."""
    x = torch.tensor([[-1e7], [-1e5], [-300.0], [400.0], [1e6]], dtype=dtype, requires_grad=True)
    gradient = torch.autograd.grad(STATISTICS['anderson_darling'](x).sum(), x)[0].double()
    n, s = len(x), x.detach().double()
    i = torch.arange(1.0, n + 1, dtype=torch.float64)[:, None]
    slope = s.abs() + 1 / s.abs() - 2 / s.abs() ** 3
    expected = torch.where(s < 0, -slope * (2 * i - 1), slope * (2 * (n + 1 - i) - 1)) / n
    torch.testing.assert_close(gradient, expected, rtol=1000 * torch.finfo(dtype).eps, atol=0)


def test_anderson_darling_with_the_fitted_tail():
    """Against a literal sum; up to 3 both tails are one."""
    x = torch.tensor([-40.0, -5.5, -3.2, -3.0, -1.0, 0.2, 3.0, 3.1, 4.5, 30.0], dtype=torch.float64)

    def log_phi(v):
        tail = (0.656 * abs(v) + 0.344 * v * v + 5.334) ** 0.5
        density = math.exp(-v * v / 2) / (2 * math.pi) ** 0.5
        if abs(v) <= 3:
            return math.log(phi(v))
        return -v * v / 2 - math.log(2 * math.pi) / 2 - math.log(tail) if v < 0 else math.log1p(-density / tail)

    def statistic(values):
        s, n = sorted(values), len(values)
        return -n - sum((2 * i + 1) * (log_phi(s[i]) + log_phi(-s[n - 1 - i])) for i in range(n)) / n

    z, fitted = x[:, None].clone().requires_grad_(), STATISTICS['anderson_darling']
    value = fitted(z, tail='fitted').sum()
    assert value.item() == pytest.approx(statistic(x.tolist()), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, z)
    for k in (0, 1, 2, 4, 5, 7, 8, 9):  # not at 3, where the fit jumps
        moved = [[v + step * (j == k) for j, v in enumerate(x.tolist())] for step in (1e-5, -1e-5)]
        difference = (statistic(moved[0]) - statistic(moved[1])) / 2e-5
        assert gradient[k].item() == pytest.approx(difference, rel=1e-6)
    inside = x[3:7, None]
    torch.testing.assert_close(fitted(inside, tail='fitted'), fitted(inside), rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match='tail'):
        fitted(inside, tail='long')


@every_statistic
def test_gradients_in_blocks(monkeypatch, statistic):
    """One block or one knot at a time; the gradient is that of differences."""
    x, v = cloud(2, 7, 3).requires_grad_(), cloud(2, 7, 3, seed=1)
    value = STATISTICS[statistic](x).sum()
    (gradient,) = torch.autograd.grad(value, x)
    step = 1e-6
    ends = [STATISTICS[statistic](x.detach() + sign * step * v).sum() for sign in (1, -1)]
    assert ((ends[0] - ends[1]) / (2 * step)).item() == pytest.approx((gradient * v).sum().item(), rel=1e-6)
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', 100)
    again = STATISTICS[statistic](x).sum()
    torch.testing.assert_close(again, value, rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.autograd.grad(again, x)[0], gradient, rtol=1e-12, atol=1e-14)


@every_statistic
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('scale', [0.0, 1e-30, 1e3])
def test_collapsed_and_huge_clouds_are_finite_and_worse_than_normal(statistic, dtype, scale):
    slices = draw_slices(5, 40, torch.Generator().manual_seed(1), cloud(1, dtype=dtype))
    z = (scale * cloud(2, 24, 5, dtype=dtype)).requires_grad_()
    value = sliced(z, slices, statistic)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()
    assert value > sliced(cloud(2, 24, 5, dtype=dtype), slices, statistic)
    standard = z.detach().clone().requires_grad_()
    sum(center_scale_shape(standard, slices, statistic)).backward()
    assert standard.grad.isfinite().all()


def test_slices_follow_from_the_seed():
    like = cloud(1)
    first, again, other = (draw_slices(6, 10, torch.Generator().manual_seed(s), like) for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(10).double())
    torch.testing.assert_close(draw_slices(6, 10, torch.Generator().manual_seed(3), like.float()), first.float())


def job(rank, world_size):
    """Value and gradient of each statistic; 10 slices are no multiple of 4 processes."""
    found = {}
    for name in STATISTICS:
        x = (cloud(3, 16, 5) * torch.linspace(0.2, 2, 16)[:, None] + 0.4).chunk(world_size, 1)[rank].requires_grad_()
        slices = draw_slices(5, 10, torch.Generator().manual_seed(0), x)
        for kind, value in (('', sliced(x, slices, name)), (' standard', sum(center_scale_shape(x, slices, name)))):
            found[name + kind], found[name + kind + ' gradient'] = value.detach(), torch.autograd.grad(value, x)[0]
    return found


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one(world_size):
    expected = job(0, 1)
    for rank, found in enumerate(run_processes(job, world_size)):
        for name, value in expected.items():
            if name.endswith('gradient'):
                value = value.chunk(world_size, 1)[rank] * world_size
            assert float((found[name] - value).abs().max()) <= 1e-12 * float(value.abs().max()), name


@every_statistic
def test_bad_input(statistic):
    slices = draw_slices(3, 4, torch.Generator(), cloud(1))
    with pytest.raises(ValueError, match='batch of 1 image says nothing'):
        sliced(cloud(1, 3), slices, statistic)
    with pytest.raises(ValueError, match='statistic is one of'):
        sliced(cloud(4, 3), slices, 'normal')


def test_bad_options():
    with pytest.raises(ValueError, match='slices=0; expected'):
        draw_slices(3, 0, torch.Generator(), cloud(1))
    with pytest.raises(ValueError, match='epps_pulley.knots=1; expected'):
        epps_pulley(cloud(4, 2), knots=1)
    with pytest.raises(ValueError, match='epps_pulley.t_max=0'):
        epps_pulley(cloud(4, 2), t_max=0)
    with pytest.raises(ValueError, match='wasserstein.clamp=0.6'):
        wasserstein(cloud(4, 2), clamp=0.6)
    x = cloud(4, 2).requires_grad_()
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(epps_pulley(x).sum(), x, create_graph=True)
