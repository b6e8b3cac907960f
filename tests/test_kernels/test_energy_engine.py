"""The engine behind energies: moments, blocks, ranks, half precision, strided rows, what backward may be asked."""

import pytest
import torch
import torch.nn.functional as F
from multiprocess import run_processes

from mmkernel.kernels import Kernel, LegendreKernel, PolynomialKernel, RBFKernel, RieszKernel, kernel_energy, layouts
from mmkernel.kernels.energy import aligned_energies

CUBIC = LegendreKernel((1.0, 40.0, 40.0))
PAIRS = [(0, 1), (0, 2), (1, 2)]


def views(n=24, q=7, V=3, dtype=torch.float64, seed=0):
    z = torch.randn(V, n, q, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (z + 0.7 * z[0]) * torch.linspace(0.2, 2, q, dtype=dtype) + 0.3


def leaf(z):
    return z.detach().clone().requires_grad_()


def textbook(z, kernel, statistic='V', pairs=PAIRS):
    u = F.normalize(z, dim=-1)
    phi = [kernel.phi((x @ x.T).clamp(-1, 1), z.shape[-1]) for x in u]
    if statistic == 'U':
        phi = [p[~torch.eye(len(p), dtype=torch.bool)] for p in phi]
    distance = torch.stack([(u[i] - u[j]).square().sum(-1).mean() for i, j in pairs]).mean()
    return distance, torch.stack([p.mean() for p in phi])


def assert_near(ours, theirs, tolerance=1e-12):
    assert float((ours - theirs).detach().norm()) <= tolerance * float(theirs.detach().norm())


@pytest.mark.parametrize('statistic', ['V', 'U'])
@pytest.mark.parametrize('kernel', [CUBIC, RBFKernel(), LegendreKernel((1.0,)), LegendreKernel((1.0, 40.0))], ids=str)
@pytest.mark.parametrize('weights', [(1.0, 0.0), (0.0, 1.0), (2.0, -3.0)])
def test_each_part_has_its_own_upstream(kernel, statistic, weights):
    ours, theirs = leaf(views()), leaf(views())
    for z, parts in (
        (ours, aligned_energies(ours, kernel, PAIRS, statistic)),
        (theirs, textbook(theirs, kernel, statistic)),
    ):
        distance, energies = parts
        factors = torch.tensor([1.0, 5.0, -2.0], dtype=z.dtype)
        (weights[0] * distance + weights[1] * (factors * energies).sum()).backward()
    assert_near(ours.grad, theirs.grad)


def test_parts_one_by_one_and_twice():
    """retain_graph: the gradient of the first walk was handed over, the second makes its own."""
    ours, theirs = leaf(views()), leaf(views())
    distance, energies = aligned_energies(ours, CUBIC, PAIRS)
    expected = textbook(theirs, CUBIC)
    for part, reference in (
        (distance, expected[0]),
        (energies.sum(), expected[1].sum()),
        (energies[1], expected[1][1]),
    ):
        (g,) = torch.autograd.grad(part, ours, retain_graph=True)
        (e,) = torch.autograd.grad(reference, theirs, retain_graph=True)
        assert_near(g, e)
    kept = g.clone()
    (distance + energies.sum()).backward()
    assert torch.equal(g, kept)
    (expected[0] + expected[1].sum()).backward()
    assert_near(ours.grad, theirs.grad)


@pytest.mark.parametrize(
    'kernel',
    [
        LegendreKernel((3.0,)),
        LegendreKernel((1.0, 40.0)),
        PolynomialKernel(2, 0.5),
        RieszKernel(2.0),
        LegendreKernel((0.0, 2.0)) + 0.5 * LegendreKernel((1.0,)),
        LegendreKernel((1.0,)) * LegendreKernel((2.0,)),
    ],
    ids=str,
)
@pytest.mark.parametrize('statistic', ['V', 'U'])
def test_moments_equal_the_gram_form(kernel, statistic, monkeypatch):
    results = []
    for hidden in (False, True):
        if hidden:
            monkeypatch.setattr(type(kernel), 'monomials', Kernel.monomials)
        else:
            assert len(kernel.monomials(5)) <= 3
        z = leaf(views(40, 5, V=2))
        energies = aligned_energies(z, kernel, [], statistic)[1]
        energies.sum().backward()
        results.append((energies.detach(), z.grad))
    assert_near(results[0][0], results[1][0])
    assert_near(results[0][1], results[1][1])


def test_polynomials_know_themselves():
    sums = LegendreKernel((1.0,)) + PolynomialKernel(2, 0.5) + 2 * RieszKernel(2.0)
    assert len(sums.monomials(9)) == 3
    assert (RBFKernel() + sums).monomials(9) is None
    assert (RBFKernel() * sums).monomials(9) is None
    assert LegendreKernel((1.0, 0.0, 0.0)).monomials(9) == (0.0, 1.0)


@pytest.mark.parametrize('precision, bound', [('bfloat16', 1e-2), ('float16', 3e-3), ('float32', 2e-6)])
@pytest.mark.parametrize('kernel', [CUBIC, LegendreKernel((0.0, 0.0, 1.0)), RBFKernel(2.5)], ids=str)
def test_half_precision_inputs(precision, bound, kernel):
    z = torch.randn(256, 8192, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 50
    exact, half = leaf(z), leaf(z.float())
    value = kernel_energy(exact, kernel)
    ours = kernel_energy(half, kernel, precision=precision)
    value.backward()
    ours.backward()
    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(value.item(), rel=1e-3)
    assert_near(half.grad, exact.grad, bound)


def test_half_precision_leaves_float64_alone():
    z = views()[0]
    assert torch.equal(kernel_energy(z, CUBIC, precision='bfloat16'), kernel_energy(z, CUBIC))


def test_numbers_beyond_float16_are_put_on_the_sphere_first():
    z = views(dtype=torch.float32)[0]
    ours = kernel_energy(1e6 * z, CUBIC, precision='float16')
    torch.testing.assert_close(ours, kernel_energy(z, CUBIC), rtol=1e-2, atol=0)
    assert kernel_energy((1e6 * z).half(), CUBIC).isnan()  # what overflowed before: the training loop sees it


def test_strided_and_half_embeddings():
    z = views()
    theirs = leaf(z)
    reference = textbook(theirs, CUBIC)
    (reference[0] + reference[1].sum()).backward()
    for strided in (z.transpose(1, 2).contiguous().transpose(1, 2), z.repeat(1, 1, 2)[..., :7]):
        x = strided.detach().requires_grad_()
        distance, energies = aligned_energies(x, CUBIC, PAIRS)
        (distance + energies.sum()).backward()
        assert_near(x.grad, theirs.grad)
    half = leaf(z.bfloat16())
    kernel_energy(half[0], CUBIC).backward()
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('budget', [1, 100, 300])
def test_many_blocks_equal_one(monkeypatch, budget, precision):
    dtype = torch.float64 if precision == 'float32' else torch.float32
    tolerance = 1e-12 if precision == 'float32' else 2e-2
    results = []
    for entries in (budget, 2**22):
        monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', entries)
        z = leaf(views(dtype=dtype))
        _, energies = aligned_energies(z, RBFKernel(), [], 'U', precision=precision)
        energies.log().sum().backward()
        results.append((energies.detach(), z.grad))
    assert_near(results[0][0], results[1][0], tolerance)
    assert_near(results[0][1], results[1][1], tolerance)


@pytest.mark.parametrize(
    'objective',
    [
        lambda z: aligned_energies(z, CUBIC, PAIRS)[0],
        lambda z: aligned_energies(z, CUBIC, PAIRS)[1].sum(),
    ],
)
def test_second_derivatives_are_refused(objective):
    z = leaf(views())
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(objective(z), z, create_graph=True)


def test_gradients_are_those_of_finite_differences():
    z = leaf(views(6, 4))
    assert torch.autograd.gradcheck(lambda z: aligned_energies(z, CUBIC, PAIRS), (z,))


def rounded_on_rank(rank, world_size):
    results = []
    for layout in ('rows', 'columns'):
        for options in (dict(precision='bfloat16'), dict(transport_dtype='bfloat16'), dict(transport_dtype='float16')):
            z = leaf(views(16, 64).float().chunk(world_size, dim=1)[rank])
            distance, energies = aligned_energies(z, CUBIC, PAIRS, layout=layout, **options)
            (distance + energies.sum()).backward()
            results.append((energies.detach(), z.grad / world_size))
    return results


def test_half_precision_on_two_ranks():
    z = leaf(views(16, 64))
    distance, energies = aligned_energies(z, CUBIC, PAIRS)
    (distance + energies.sum()).backward()
    for rank, results in enumerate(run_processes(rounded_on_rank, 2)):
        for ours, gradient in results:
            assert_near(ours.double(), energies.detach(), 1e-2)
            assert_near(gradient.double(), z.grad.chunk(2, dim=1)[rank], 1e-2)
