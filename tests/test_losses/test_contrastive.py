"""Logits of the batch against itself: values and gradients of the folded form, blocks, half precision."""

import pytest
import torch
import torch.nn.functional as F

from mmkernel.kernels import layouts
from mmkernel.losses import in_batch_info_nce, nt_xent
from mmkernel.registry import MODELS

PAIRS = [(0, 1), (0, 2), (1, 2)]


def views(n=24, q=7, V=3, dtype=torch.float64, seed=0):
    z = torch.randn(V, n, q, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (z + 0.7 * z[0]) * torch.linspace(0.2, 2, q, dtype=dtype) + 0.3


def leaf(z):
    return z.detach().clone().requires_grad_()


def assert_near(ours, theirs, tolerance=1e-12):
    assert float((ours - theirs).detach().norm()) <= tolerance * float(theirs.detach().norm())


def nt_xent_textbook(z, T, pairs):
    u = F.normalize(z, dim=-1)
    logits = u.flatten(0, 1) @ u.flatten(0, 1).T / T
    lse = logits.masked_fill(torch.eye(len(logits), dtype=torch.bool), -torch.inf).logsumexp(1).view(z.shape[:2])
    return torch.stack([(lse[i] - (u[i] * u[j]).sum(-1) / T).mean() for i, j in pairs]).mean()


@pytest.mark.parametrize('pairs', [None, [(0, 1), (1, 0), (0, 2), (2, 0)], [(0, 1), (0, 2)], [(2, 1)]])
@pytest.mark.parametrize('budget', [100, 10**6])
def test_rows_of_the_batch_as_negatives(monkeypatch, pairs, budget):
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', budget)
    ours, theirs = leaf(views()), leaf(views())
    every = [(i, j) for i in range(3) for j in range(3) if i != j]
    loss, reference = nt_xent(ours, 0.1, pairs), nt_xent_textbook(theirs, 0.1, pairs or every)
    assert_near(loss, reference)
    for upstream in (1.0, 3.0):  # twice over one graph
        (g,) = torch.autograd.grad(upstream * loss, ours, retain_graph=True)
        (e,) = torch.autograd.grad(upstream * reference, theirs, retain_graph=True)
        assert_near(g, e)


@pytest.mark.parametrize('precision, bound', [('bfloat16', 2e-2), ('float16', 3e-3), ('float32', 1e-5)])
def test_logits_of_half_precision_inputs(precision, bound):
    z = torch.randn(2, 64, 1024, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    exact, half = leaf(z), leaf(z.float())
    value, ours = nt_xent(exact, 0.1), nt_xent(half, 0.1, precision=precision)
    value.backward()
    ours.backward()
    assert ours.item() == pytest.approx(value.item(), rel=1e-3)
    assert_near(half.grad, exact.grad, bound)


def test_small_temperatures_do_not_underflow():
    z = leaf(views(dtype=torch.float32))
    loss = nt_xent(z, 0.002)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
    assert_near(loss.double(), nt_xent_textbook(z.detach().double(), 0.002, PAIRS + [(j, i) for i, j in PAIRS]), 1e-4)


@pytest.mark.parametrize('budget', [100, 10**6])
@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
def test_rounded_logits_in_many_blocks(monkeypatch, budget, precision):
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', budget)
    exact, half = leaf(views()), leaf(views().float())
    nt_xent(exact, 0.3).backward()
    nt_xent(half, 0.3, precision=precision).backward()
    assert_near(half.grad, exact.grad, 2e-2)


def test_second_derivatives_are_refused():
    z = leaf(views())
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(nt_xent(z, 0.1), z, create_graph=True)


def test_keys_without_a_graph_get_no_gradient_and_the_others_theirs():
    p, t = leaf(views()), leaf(views(seed=1))
    pairs = [(0, 1), (1, 0)]
    with_graph = torch.autograd.grad(in_batch_info_nce(p, t, 0.2, pairs), (p, t))
    (without,) = torch.autograd.grad(in_batch_info_nce(p, t.detach(), 0.2, pairs), (p,))
    assert torch.equal(with_graph[0], without)
    assert with_graph[1][:2].abs().sum() > 0


@pytest.mark.parametrize('negatives', ['targets', 'queue'])
def test_options_of_the_matrix_of_logits_go_with_views(negatives):
    queue = dict(type='FeatureQueue', length=8, dim=4) if negatives == 'queue' else None
    with pytest.raises(ValueError, match="go with negatives='views'"):
        MODELS.build(dict(type='InfoNCEHead', negatives=negatives, queue=queue, layout='columns'))
