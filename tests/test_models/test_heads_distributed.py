"""N processes equal one: value and parameter gradients of every registered head on W ranks, against the union batch."""

import pytest
import torch
from multiprocess import run_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmkernel.models import Embeddings, Head
from mmkernel.registry import MODELS

LEGENDRE = dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))
RBF = dict(type='RBFKernel', scale=2.5)
# A registered head without a line here fails test_every_registered_head_is_covered.
HEADS = [
    dict(type='KernelMMDHead', kernel=LEGENDRE, alignment_weight=4000.0, reduction='element'),
    dict(type='KernelMMDHead', kernel=RBF, statistic='U', log=True),
    dict(type='KernelMMDHead', kernel=dict(type='RieszKernel'), regularize='target'),
    dict(type='KernelMMDHead', kernel=dict(type='LaplaceKernel'), statistic='U'),
]
VIEWS, BATCH, WIDTH = 3, 16, 12  # BATCH is global


def test_every_registered_head_is_covered():
    found = (MODELS.get(name) for name in MODELS.names())
    own = {
        c.__name__
        for c in found
        if isinstance(c, type) and issubclass(c, Head) and c.__module__.startswith('mmkernel.')
    }
    assert own - {'Head'} == {head['type'] for head in HEADS}


class Toy(nn.Module):
    """An encoder without batch statistics, and the head on V views of each sample."""

    def __init__(self, head: dict) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(10, 20), nn.Tanh(), nn.Linear(20, WIDTH)).double()
        self.head = MODELS.build(dict(head)).double()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # (V, B, 10)
        return self.head.loss(Embeddings.from_views(*self.encoder(x)))


def data() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(VIEWS, BATCH, 10, dtype=torch.float64, generator=generator)
    # Each sample another scale and centre, so that no rank's rows look like another's.
    return x * torch.linspace(0.1, 3, BATCH, dtype=torch.float64)[:, None] + torch.linspace(-2, 2, BATCH)[:, None]


def outcome(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    parts = model(x)
    sum(value for name, value in parts.items() if name.startswith('loss_')).backward()
    gradients = {name.removeprefix('module.'): p.grad for name, p in model.named_parameters()}
    return {**{name: value.detach() for name, value in parts.items()}, **gradients}


def on_rank(rank: int, world_size: int) -> list[dict[str, torch.Tensor]]:
    local = data().chunk(world_size, dim=1)[rank].contiguous()
    return [outcome(DistributedDataParallel(Toy(head)), local) for head in HEADS]


@pytest.mark.parametrize('world_size', [2, 4])
def test_union_batch(world_size):
    expected = [outcome(Toy(head), data()) for head in HEADS]
    for rank_outcome in run_processes(on_rank, world_size):
        for head, ours, union in zip(HEADS, rank_outcome, expected, strict=True):
            assert ours.keys() == union.keys()
            for name in union:
                scale = float(union[name].abs().max())
                assert float((ours[name] - union[name]).abs().max()) <= 1e-12 * max(scale, 1e-3), (head, name)


def unequal_batches(rank: int, world_size: int) -> str:
    z = torch.randn(3 + rank, 5)
    try:
        MODELS.build(dict(HEADS[0])).loss(Embeddings.from_views(z, z + 1))
    except ValueError as error:
        return str(error)
    return 'no error'


def test_unequal_local_batches_are_refused_on_every_rank():
    for message in run_processes(unequal_batches, 2):
        assert 'from 3 to 4 rows' in message
        assert 'drop_last=True' in message
