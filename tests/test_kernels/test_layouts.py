"""Gram matrices by rows and by columns, in one block or many, on one rank or several, and what half precision costs."""

import pytest
import torch
from multiprocess import run_processes

from mmkernel import distributed
from mmkernel.kernels import gram, layouts
from mmkernel.kernels.gram import Engine
from mmkernel.kernels.layouts import Columns, Rows, arrange

N, WIDTH = 12, 7  # a width that neither 2 nor 4 divides


def rows(n=N, q=WIDTH, dtype=torch.float64):
    return torch.randn(n, q, dtype=dtype, generator=torch.Generator().manual_seed(0))


def cubes(layout):
    """sum_ij (x_i.x_j)^3 and its gradient, as a pairwise objective would make them."""
    total, gradient = torch.zeros((), dtype=torch.float64), layout.buffer()
    for block in layout.blocks():
        t = layout.gram(block)
        b = t.shape[0]
        total += t[:, :b].pow(3).sum() + (2 * t[:, b:].pow(3).sum() if layout.mirrored else t[:, b:].pow(3).sum())
        layout.accumulate(gradient, 6 * t.square(), block)
    return total, layout.collect(gradient)


def expected():
    x = rows().requires_grad_()
    value = (x @ x.T).pow(3).sum()
    value.backward()
    return value.detach(), x.grad


@pytest.mark.parametrize('budget', [1, 30, 60, 10**6])
def test_blocks_on_one_rank(monkeypatch, budget):
    monkeypatch.setattr(layouts, 'BLOCK_ENTRIES', budget)
    layout = arrange(rows(), Engine(layout='columns'))
    assert type(layout) is Rows  # one rank has nothing to exchange
    value, gradient = cubes(layout)
    torch.testing.assert_close(value, expected()[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, expected()[1], rtol=1e-12, atol=1e-12)
    assert max(b.stop - b.start for b in layout.blocks()) <= max(1, budget // N)


def on_rank(rank, world_size):
    results = []
    x = rows().chunk(world_size)[rank]
    for budget in (20, 10**6):
        layouts.BLOCK_ENTRIES = budget
        for word in ('rows', 'columns'):
            layout = arrange(x, Engine(layout=word))
            assert type(layout) is {'rows': Rows, 'columns': Columns}[word]
            value, gradient = cubes(layout)
            if word == 'rows':
                value = distributed.sum_over_ranks(value)
            results.append((value, gradient))
    shard = distributed.rows_to_columns(x)
    assert torch.equal(distributed.columns_to_rows(shard, WIDTH), x)
    half = x.bfloat16()
    assert torch.equal(distributed.columns_to_rows(distributed.rows_to_columns(half), WIDTH), half)
    assert torch.equal(distributed.gather_rows(half), rows().bfloat16())
    rounded = [arrange(x.float(), Engine(layout=w, transport_dtype='bfloat16')) for w in ('rows', 'columns')]
    assert torch.equal(rounded[0].x, rows().bfloat16().float())
    return [*results, *(cubes(layout) for layout in rounded)]


@pytest.mark.parametrize('world_size', [2, 4])
def test_layouts_on_several_ranks(world_size):
    value, gradient = expected()
    for rank, results in enumerate(run_processes(on_rank, world_size)):
        own = gradient.chunk(world_size)[rank]
        for k, (ours, g) in enumerate(results):
            tolerance = 1e-12 if k < 4 else 2e-2
            if k != 4:  # rows in bfloat16: a rank's own part of the value was not summed
                torch.testing.assert_close(ours.double(), value, rtol=tolerance, atol=0)
            assert float((g - own).norm() / own.norm()) < tolerance


def test_automatic_layout_is_by_size(monkeypatch):
    monkeypatch.setattr(layouts, 'world_size', lambda: 2)
    chosen = []
    monkeypatch.setattr(layouts, 'Rows', lambda x, engine: chosen.append('rows'))
    monkeypatch.setattr(layouts, 'Columns', lambda x, engine: chosen.append('columns'))
    for q in (31, 32):
        arrange(torch.ones(4, q), Engine())
    assert chosen == ['rows', 'columns']


@pytest.mark.parametrize('n', [1, 5, 128, 300])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_symmetric_gram(n, dtype):
    x = rows(n, 33, dtype)
    G = gram.symmetric_gram(x)
    torch.testing.assert_close(G, G.T)
    torch.testing.assert_close(G, x @ x.T)
    torch.testing.assert_close(gram.symmetric_gram(x.T.contiguous().T), G)  # strided rows


@pytest.mark.parametrize('word, error', [('bfloat16', 2**-8), ('float16', 2**-11)])
def test_half_inputs_accumulate_in_float32(word, error):
    a, b = rows(64, 4096, torch.float32), rows(32, 4096, torch.float32).T
    half = gram.product(a, b, Engine(word).dtype(a))
    assert half.dtype == torch.float32
    assert float((half - a @ b).norm() / (a @ b).norm()) < error


def test_precisions():
    x = rows(dtype=torch.float32)
    assert Engine().dtype(x) == torch.float32
    assert Engine('bfloat16').dtype(x) == torch.bfloat16
    assert Engine('bfloat16').dtype(x.double()) == torch.float64
    assert Engine().dtype(x.bfloat16()) == torch.float32  # a CPU's half products come out in half
    assert Engine().options(x, torch.bfloat16)['precision'] == 'auto'
    assert Engine('float16').transport(x) == torch.float16
    assert Engine(transport_dtype='bfloat16').transport(x) == torch.bfloat16


def test_float16_ends_early():
    with pytest.raises(ValueError, match="up to 1e.05 do not fit into float16.*precision='bfloat16'"):
        gram.product(torch.full((2, 2), 1e5), torch.eye(2), torch.float16)
    assert torch.isfinite(gram.product(torch.full((2, 2), 1e5), torch.eye(2), torch.bfloat16)).all()


@pytest.mark.parametrize('option', [dict(precision='half'), dict(layout='tiles'), dict(transport_dtype='float32')])
def test_unknown_words(option):
    with pytest.raises(ValueError, match=f'{next(iter(option))} is one of'):
        Engine(**option)


def test_memory_that_does_not_suffice(monkeypatch):
    monkeypatch.setattr(gram, 'available_memory', lambda device: 4 * 10**9)
    with pytest.raises(ValueError, match=r"A Gram matrix needs 40 GB; 4 GB are free on cpu. layout='rows' avoids it."):
        gram.require_memory(10**10, torch.zeros(1), 'A Gram matrix', "layout='rows' avoids it.")
    gram.require_memory(10**9, torch.zeros(1), 'A Gram matrix', '')


def test_available_memory_is_known_on_a_cpu():
    assert gram.available_memory(torch.device('cpu')) > 0
