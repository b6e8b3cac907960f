"""Codes against the authors' code, at small epsilon, and on several processes."""

import numpy as np
import pytest
import torch
from multiprocess import run_processes

from mmkernel.losses import sinkhorn


def plain(scores, epsilon, iterations):
    """The published loop, in float64."""
    Q = (scores.double() / epsilon).exp().T
    Q /= Q.sum()
    for _ in range(iterations):
        Q /= Q.sum(1, keepdim=True) * Q.shape[0]
        Q /= Q.sum(0, keepdim=True) * Q.shape[1]
    return (Q * Q.shape[1]).T


def unit_scores(rows=16, prototypes=24, width=16, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    z, c = (torch.randn(n, width, dtype=torch.float64, generator=g) for n in (rows, prototypes))
    return (torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(c, dim=1).T).to(dtype)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_golden_codes(golden, dtype, tolerance):
    g = golden('sinkhorn_B16_K24')
    scores = torch.from_numpy(g['in_scores']).to(dtype)
    codes = sinkhorn(scores, float(g['hp_epsilon']), int(g['hp_sinkhorn_iterations']))
    assert np.abs(codes.numpy() - g['out_codes']).max() <= tolerance * np.abs(g['out_codes']).max()


@pytest.mark.parametrize('epsilon', [0.05, 0.01])
@pytest.mark.parametrize('iterations', [1, 3, 10])
def test_single_precision_at_small_epsilon_equals_the_plain_loop_in_double(epsilon, iterations):
    scores = unit_scores(prototypes=8) + torch.linspace(-0.5, 0, 16, dtype=torch.float64)[:, None]  # unlike row maxima
    codes = sinkhorn(scores.float(), epsilon, iterations)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.double(), plain(scores, epsilon, iterations), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_finite_where_scores_span_the_whole_range(dtype):
    scores = torch.full((6, 4), -1.0)
    scores[:5, 0], scores[5, 1] = 1.0, -0.9
    codes = sinkhorn(scores.to(dtype), 0.01)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(6))


def test_rows_sum_to_one_prototypes_share_and_the_last_rows_are_the_same():
    scores = unit_scores(64, 8)
    codes = sinkhorn(scores, 0.05, 50)
    torch.testing.assert_close(codes.sum(1), torch.ones(64, dtype=torch.float64))
    torch.testing.assert_close(codes.sum(0), torch.full((8,), 8.0, dtype=torch.float64), rtol=1e-6, atol=0)
    torch.testing.assert_close(sinkhorn(scores, last=10), sinkhorn(scores)[-10:], rtol=0, atol=0)


def codes_on_rank(rank, world_size):
    return sinkhorn(unit_scores().chunk(world_size)[rank], 0.02)


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_make_the_codes_of_the_union_batch(world_size):
    codes = torch.cat(run_processes(codes_on_rank, world_size))
    torch.testing.assert_close(codes, sinkhorn(unit_scores(), 0.02), rtol=0, atol=1e-12)


@pytest.mark.parametrize('options', [dict(epsilon=0.0), dict(iterations=0)])
def test_settings_without_meaning(options):
    with pytest.raises(ValueError, match='epsilon > 0 and iterations >= 1'):
        sinkhorn(unit_scores(), **options)
