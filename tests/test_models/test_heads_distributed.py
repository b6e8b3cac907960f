"""N processes equal one: value and parameter gradients of every registered head on W ranks, against the union batch."""

import pytest
import torch
from multiprocess import run_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmkernel.distributed import rank as rank_of_process
from mmkernel.models import Embeddings, Head
from mmkernel.models.joint_embedding import build_part
from mmkernel.registry import MODELS

LEGENDRE = dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))
RBF = dict(type='RBFKernel', scale=2.5)
IMQ = dict(type='InverseMultiquadricKernel', c='q')
# A registered head without a line here fails test_every_registered_head_is_covered.
HEADS = [
    dict(type='KernelMMDHead', kernel=LEGENDRE, alignment_weight=4000.0, reduction='element'),
    dict(type='KernelMMDHead', kernel=RBF, statistic='U', log=True),
    dict(type='KernelMMDHead', kernel=dict(type='RieszKernel'), regularize='target'),
    dict(type='KernelMMDHead', kernel=dict(type='LaplaceKernel'), statistic='U'),
    # WIDTH is no multiple of 4 ranks; degrees 1 and 2 need no Gram matrix
    dict(type='KernelMMDHead', kernel=LEGENDRE, alignment_weight=4000.0, reduction='element', layout='columns'),
    dict(type='KernelMMDHead', kernel=RBF, statistic='U', log=True, layout='columns'),
    dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0))),
    dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0,)), statistic='U'),
    dict(type='KernelMMDHead', kernel=RBF, align='mean', scale_by_rows=True),
    dict(type='KernelMMDHead', kernel=IMQ, target='normal', align='mean', scale_by_rows=True, reduction='element'),
    dict(type='KernelMMDHead', kernel=IMQ, target='normal', normalize=True, layout='columns', regularize='target'),
    dict(type='KernelMMDHead', kernel=dict(type='RieszKernel'), target='normal', statistic='U'),
    dict(type='KernelMMDHead', kernel=dict(type='PolynomialKernel'), target='normal'),
    dict(type='ClusterHead', num_clusters=(5, 3)),
    dict(type='ClusterHead', num_clusters=(4,), classifier='linear', normalize=False),
    dict(type='CosinePredictionHead'),
    dict(type='InfoNCEHead', temperature=0.2),
    dict(type='InfoNCEHead', temperature=0.2, layout='columns'),
    dict(type='InfoNCEHead', temperature=0.2, negatives='targets'),
    dict(type='InfoNCEHead', temperature=0.2, negatives='queue', queue=dict(type='FeatureQueue', length=32, views=3)),
    dict(
        type='PredictiveCodingHead', steps=1, directions=('right', 'left'), grid=(1, 3), context=dict(dim=8, blocks=2)
    ),
    dict(type='SinkhornCodesHead', num_prototypes=6),
    dict(type='SinkhornCodesHead', num_prototypes=20, epsilon=0.02, queue_length=32, queue_views=3),
    dict(type='VarianceCovarianceHead'),
    dict(type='VarianceCovarianceHead', invariance_weight=0.0, variance_weight=3.0, layout='columns'),
    dict(type='VarianceCovarianceHead', variance_weight=0.0, covariance_weight=0.0, reduction='sample'),
    dict(type='CrossCorrelationHead'),
    dict(type='CrossCorrelationHead', off_diagonal_weight=0.1, layout='columns'),
    dict(type='VarianceCovarianceHead', align='mean'),
    dict(type='SlicedHead', num_slices=9),
    dict(type='SlicedHead', num_slices=9, statistic='cramer', align='pairs', reduction='sample'),
    dict(type='SlicedHead', num_slices=9, statistic='wasserstein', standardize=True),
    dict(type='EntropyHead'),
    dict(type='EntropyHead', kernel=RBF, align='mean'),
    dict(type='EntropyHead', kernel=RBF, layout='columns', regularize='target', reduction='element'),
    dict(type='SpectrumHead', local_weight=0.2),
    dict(type='SpectrumHead', objective='wasserstein'),
    dict(type='SpectrumHead', objective='frobenius'),
    dict(type='SpectralContrastiveHead', mu=2.0),
    dict(type='QuadraticMemoryHead'),
    dict(type='QuadraticMemoryHead', centered=True, align='mean'),
    dict(type='LogDetHead', views=3),
    dict(type='LogDetHead', views=3, momentum=0.9, normalize=True),
    dict(type='WhiteningHead', shrinkage=0.2),
    dict(type='WhiteningHead', method='zca', shrinkage=0.2, statistics='joint', distance='squared'),
    dict(type='WhiteningHead', method='pca_cor', shrinkage=0.2),
    dict(type='MutualInformationHead', critic=dict(type='ConcatenatedCritic', dims=(8, 8))),
    dict(type='MutualInformationHead', bound='dv'),
    dict(type='MutualInformationHead', bound='js'),
    dict(type='MutualInformationHead', bound='interpolated', log_baseline='learned'),
    dict(
        type='SumHead',
        heads=dict(
            pull=dict(type='CosinePredictionHead'),
            memory=dict(type='QuadraticMemoryHead', alignment_weight=0.0),
            far=dict(type='EntropyHead', alignment_weight=0.0),
            slices=dict(type='SlicedHead', num_slices=5, statistic='watson', alignment_weight=0.0),
        ),
    ),
    dict(
        type='SumHead', heads=dict(pull=dict(type='CosinePredictionHead'), spread=dict(type='VarianceCovarianceHead'))
    ),
]
VIEWS, BATCH, WIDTH = 3, 16, 10  # BATCH is global


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
        self.head = build_part(head, in_dim=WIDTH).double()
        if getattr(self.head, 'queue', None) is not None:
            self.head.queue.enable()
        if hasattr(self.head, 'pseudo'):
            self.head.prepare(BATCH)
            for h, K in enumerate(self.head.num_clusters):  # the last rank has fewer labels than the others
                self.head.pseudo.set(h, torch.arange(BATCH - 3), torch.arange(BATCH - 3) % K)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # (V, B, 10)
        sample_index = torch.arange(x.shape[1]) + rank_of_process() * x.shape[1]
        return self.head.loss(Embeddings.from_views(*self.encoder(x), sample_index=sample_index))


def data(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(VIEWS, BATCH, 10, dtype=torch.float64, generator=generator)
    # Each sample another scale and centre, so that no rank's rows look like another's.
    return x * torch.linspace(0.1, 3, BATCH, dtype=torch.float64)[:, None] + torch.linspace(-2, 2, BATCH)[:, None]


def outcome(toy: Toy, model: nn.Module, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Loss parts, gradients, and what the head remembers, after two earlier batches that it has remembered."""
    earlier, before, local = (data(seed).chunk(world_size, dim=1)[rank].contiguous() for seed in (3, 2, 1))
    for x in (earlier, before):
        with torch.no_grad():
            toy(x)
        toy.head.commit()
    parts = model(local)
    sum(value for name, value in parts.items() if name.startswith('loss_')).backward()
    gradients = {f'gradient {name}': p.grad for name, p in toy.named_parameters() if p.requires_grad}
    toy.head.commit()
    buffers = {f'buffer {name}': buffer.clone().double() for name, buffer in toy.named_buffers()}
    return {**{name: value.detach() for name, value in parts.items()}, **gradients, **buffers}


def on_rank(rank: int, world_size: int) -> list[dict[str, torch.Tensor]]:
    toys = [Toy(head) for head in HEADS]
    return [outcome(toy, DistributedDataParallel(toy), rank, world_size) for toy in toys]


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_union_batch(world_size):
    toys = [Toy(head) for head in HEADS]
    expected = [outcome(toy, toy) for toy in toys]
    for rank_outcome in run_processes(on_rank, world_size, timeout=400):
        for head, ours, union in zip(HEADS, rank_outcome, expected, strict=True):
            assert ours.keys() == union.keys()
            # gradients on one scale: that of a bias vanishes, up to rounding, for a loss of differences
            gradient = max(float(value.abs().max()) for name, value in union.items() if name.startswith('gradient'))
            for name in union:
                scale = gradient if name.startswith('gradient') else float(union[name].abs().max())
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
