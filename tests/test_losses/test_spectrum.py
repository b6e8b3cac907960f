"""Objectives of the spectrum: the authors' figures, singular values, lost ranks, identities, processes, bad input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from multiprocess import run_processes

from mmkernel.losses import (
    centroid_norms,
    log_frobenius_terms,
    nuclear_norm,
    spectral_contrastive,
    wasserstein_to_uniform,
)
from mmkernel.models import SpectralContrastiveHead, SpectrumHead

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}
every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)


def check(g, dtype, device, loss, *names):
    inputs = [torch.from_numpy(g[f'in_{name}']).to(device, dtype).requires_grad_() for name in names]
    value = loss(*inputs)
    assert value.item() == pytest.approx(float(g['out_loss']), rel=DTYPES[dtype])
    value.backward()
    for x, name in zip(inputs, names, strict=True):
        expected = g[f'grad_{name}']
        assert np.abs(x.grad.cpu().numpy() - expected).max() <= 10 * DTYPES[dtype] * np.abs(expected).max(), name


@every_dtype
def test_nuclear_norm_of_centroids(golden, dtype, device):
    """The file has the views of an image side by side."""
    g = golden('mmcr_l0_a4_n12_q16')
    head, views = SpectrumHead(local_weight=float(g['hp_lmbda'])), int(g['hp_n_aug'])
    check(g, dtype, device, lambda z: head(*z.unflatten(0, (-1, views)).unbind(1)), 'z')


@every_dtype
def test_wasserstein(golden, dtype, device):
    head = SpectrumHead('wasserstein', alignment_weight=0.0)
    check(golden('w2uniform_n24_q6'), dtype, device, head, 'x', 'y')


@every_dtype
def test_frobenius(golden, dtype, device):
    check(golden('frossl_n24_q6'), dtype, device, SpectrumHead('frobenius'), 'x', 'y')


@every_dtype
def test_spectral_contrast(golden, dtype, device):
    g = golden('spectral_mu1_n20_q8')
    head = SpectralContrastiveHead(mu=float(g['hp_mu']))
    check(g, dtype, device, head, 'x', 'y')
    x, y = (torch.from_numpy(g[f'in_{name}'])[None] for name in 'xy')
    parts = spectral_contrastive(x, y, float(g['hp_mu']), [(0, 0)])
    assert [part.item() for part in parts] == pytest.approx([float(g['out_part1']), float(g['out_part2'])], rel=1e-9)


def cloud(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('shape', [(9, 4), (4, 9), (3, 5, 5), (2, 3, 8, 2)])
def test_nuclear_norm_is_the_sum_of_singular_values(shape):
    x, same = cloud(*shape).requires_grad_(), cloud(*shape).requires_grad_()
    weights = cloud(*shape[:-2], seed=1)
    ours, theirs = nuclear_norm(x), torch.linalg.svdvals(same).sum(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad((weights * ours).sum(), x)
    (expected,) = torch.autograd.grad((weights * theirs).sum(), same)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-11)


@every_dtype
@pytest.mark.parametrize('rank', [0, 1, 2])
def test_lost_ranks(rank, dtype):
    """Norms are right, and gradients have singular values of at most 1."""
    for shape in ((12, 5), (4, 7)):
        x = cloud(shape[0], rank, dtype=dtype) @ cloud(rank, shape[1], seed=1, dtype=dtype)
        x = x.requires_grad_()
        norm = nuclear_norm(x)
        (gradient,) = torch.autograd.grad(norm, x)
        expected = torch.linalg.svdvals(x.detach().double()).sum().item()
        assert norm.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
        assert torch.linalg.svdvals(gradient).max() <= 1 + 1e-4


def test_local_norms_and_centroids():
    z = cloud(3, 6, 5)
    u = F.normalize(z, dim=-1)
    centroids, local = centroid_norms(z)
    torch.testing.assert_close(centroids, torch.linalg.svdvals(u.mean(0)).sum())
    torch.testing.assert_close(local, torch.linalg.svdvals(u.transpose(0, 1)).sum(-1).mean())
    raw = centroid_norms(z, normalize=False)
    torch.testing.assert_close(raw[0], torch.linalg.svdvals(z.mean(0)).sum())
    targets = cloud(3, 6, 5, seed=2)
    head = SpectrumHead(with_targets=True, local_weight=0.3)
    both = centroid_norms(torch.cat([z, targets]))
    torch.testing.assert_close(head(*z, target=targets), 0.3 * both[1] - both[0])


def test_wasserstein_is_the_distance_of_moments():
    z = cloud(2, 20, 4)
    u = F.normalize(z, dim=-1).flatten(0, 1)
    mean, S = u.mean(0), torch.cov(u.T, correction=0)
    root = torch.linalg.eigvalsh(S).sqrt().sum()
    expected = mean.square().sum() + 1 + S.trace() - 2 / 4**0.5 * root
    # of unit rows, ||mean||^2 + tr S = 1
    torch.testing.assert_close(wasserstein_to_uniform(z, squared=True), expected)
    torch.testing.assert_close(wasserstein_to_uniform(z), expected.sqrt())


@every_dtype
def test_the_optimum_of_the_wasserstein_distance_has_a_gradient(dtype):
    axes = torch.cat([torch.eye(4, dtype=dtype), -torch.eye(4, dtype=dtype)])
    z = torch.stack([axes, axes]).requires_grad_()
    loss = wasserstein_to_uniform(z)
    loss.backward()
    assert 0 <= loss < 1e-3
    assert z.grad.isfinite().all()
    assert z.grad.abs().max() < 1


def test_spectral_contrast_is_alignment_and_a_quadratic_mmd():
    """With all pairs: mean ||x - y||^2 + ||C - I||_F^2 - q - ||C_x - C_y||_F^2 / 4, C = (C_x + C_y) / 2."""
    x, y = 0.3 * cloud(20, 5), 0.3 * cloud(20, 5, seed=1)
    K, n = x @ y.T, 20
    attraction, repulsion = spectral_contrastive(x[None], y[None], 100.0, [(0, 0)])
    every = (repulsion * 100 * n * (n - 1) + K.diagonal().square().sum()) / n**2
    Cx, Cy = x.T @ x / n, y.T @ y / n
    distance = (x - y).square().sum(1).mean()
    mmd2 = ((Cx + Cy) / 2 - torch.eye(5, dtype=x.dtype)).square().sum()
    expected = distance + mmd2 - 5 - (Cx - Cy).square().sum() / 4
    torch.testing.assert_close(attraction * 100 + every, expected)


@pytest.mark.parametrize('q', [5, 40])
def test_spectral_contrast_of_three_views(q):
    """By moments, and by products where N < q."""
    z, same = cloud(3, 20, q).requires_grad_(), cloud(3, 20, q).requires_grad_()
    ours = sum(spectral_contrastive(z, z, 2.0))
    u = same * (2**0.5 / same.norm(dim=-1, keepdim=True)).clamp(max=1)
    total = 0
    for i, j in ((0, 1), (0, 2), (1, 2)):
        K = u[i] @ u[j].T
        total = total - 2 * K.diagonal().mean() + (K.square().sum() - K.diagonal().square().sum()) / 380
    torch.testing.assert_close(ours, total / 6)
    (gradient,), (expected,) = torch.autograd.grad(ours, z), torch.autograd.grad(total / 6, same)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize('shape', [(2, 12, 5), (3, 5, 12)])
def test_frobenius_on_both_sides(shape):
    z, same = cloud(*shape).requires_grad_(), cloud(*shape).requires_grad_()
    alignment, entropy = log_frobenius_terms(z)
    x = F.normalize(same, dim=1)
    C = x.mT @ x
    trace = C.diagonal(dim1=1, dim2=2).sum(1).detach()
    expected = (C / trace[:, None, None]).square().sum((1, 2)).log().sum()
    V, _, q = shape
    apart = V * q * sum((view - x.mean(0)).square().mean() for view in x)
    torch.testing.assert_close(torch.stack([alignment, entropy]), torch.stack([apart, expected]))
    (gradient,) = torch.autograd.grad(alignment + entropy, z)
    (wanted,) = torch.autograd.grad(apart + expected, same)
    torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


HEADS = [
    SpectrumHead(local_weight=0.1),
    SpectrumHead('wasserstein'),
    SpectrumHead('frobenius'),
    SpectralContrastiveHead(),
]


@every_dtype
@pytest.mark.parametrize('head', HEADS, ids=lambda head: getattr(head, 'objective', 'contrast'))
@pytest.mark.parametrize('kind', ['zero', 'point', 'one view is zero', 'wide point'])
def test_collapsed_rows(head, kind, dtype):
    shape = (2, 12, 40) if kind == 'wide point' else (2, 12, 5)
    z = torch.ones(shape, dtype=dtype) if 'point' in kind else torch.zeros(shape, dtype=dtype)
    if kind == 'one view is zero':
        z[0] = cloud(12, 5, dtype=dtype)
    z.requires_grad_()
    loss = head(*z)
    loss.backward()
    assert loss.isfinite()
    assert z.grad.isfinite().all()
    good = cloud(*shape[1:], dtype=dtype)
    assert head(good, good) < loss


@pytest.mark.parametrize('head', HEADS, ids=lambda head: getattr(head, 'objective', 'contrast'))
@pytest.mark.parametrize('bad', [torch.nan, torch.inf])
def test_what_is_not_finite_is_seen(head, bad):
    z = cloud(2, 12, 5)
    z[0, 3, 2] = bad
    assert not head(*z).isfinite()


def job(rank, world_size):
    found = {}
    for q in (5, 40):
        functions = dict(
            centroids=lambda z: centroid_norms(z)[0] + 0.1 * centroid_norms(z)[1],
            wasserstein=wasserstein_to_uniform,
            frobenius=lambda z: sum(log_frobenius_terms(z)),
            contrast=lambda z: sum(spectral_contrastive(z, z)),
        )
        for name, function in functions.items():
            z = (cloud(3, 16, q) + 0.2).chunk(world_size, 1)[rank].contiguous().requires_grad_()
            value = function(z)
            key = f'{name} {q}'
            found[key], found[key + ' gradient'] = value.detach(), torch.autograd.grad(value, z)[0]
    return found


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one(world_size):
    expected = job(0, 1)
    for rank, found in enumerate(run_processes(job, world_size)):
        for name, value in expected.items():
            if name.endswith('gradient'):
                value = value.chunk(world_size, 1)[rank] * world_size
            assert float((found[name] - value).abs().max()) <= 1e-12 * float(value.abs().max()), name


def test_bad_input():
    one = cloud(2, 1, 4)
    with pytest.raises(ValueError, match='batch of 1 image has no negatives'):
        SpectralContrastiveHead()(*one)
    for objective in ('centroids', 'wasserstein'):
        with pytest.raises(ValueError, match='q >= 2|at least 2|dimension'):
            SpectrumHead(objective)(*cloud(2, 6, 1))
    with pytest.raises(ValueError, match=r'shape \(V, B, q\), got \(6, 4\)'):
        wasserstein_to_uniform(torch.ones(6, 4))
    with pytest.raises(ValueError, match='SpectralContrastiveHead.mu=0'):
        SpectralContrastiveHead(mu=0.0)
    with pytest.raises(ValueError, match='SpectrumHead.objective is one of'):
        SpectrumHead('nuclear')
    with pytest.raises(ValueError, match='SpectrumHead.local_weight=-1'):
        SpectrumHead(local_weight=-1.0)
    x = cloud(4, 3).requires_grad_()
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(nuclear_norm(x), x, create_graph=True)
