"""What a step holds at its peak: rank 0 of 8 under PyTorch's fake process group, SFRIK in the proportions of q = 32 768."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from live_bytes import LiveBytes
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from mmkernel.engine import LARS, PretrainOptimWrapper
from mmkernel.engine.wrapping import wrap_model
from mmkernel.models import Embeddings, JointEmbedding, necks
from mmkernel.registry import MODELS

HIDDEN, Q, B, W = 256, 1024, 2, 8
LARGEST = 4 * HIDDEN * Q  # bytes of the last weight

KERNELS = dict(
    L1=dict(type='LegendreKernel', weights=(1.0,)),
    L2=dict(type='LegendreKernel', weights=(1.0, 40.0)),
    L3=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)),
    rbf=dict(type='RBFKernel'),
)
HEADS = {name: dict(type='KernelMMDHead', kernel=kernel) for name, kernel in KERNELS.items()} | dict(
    variance=dict(type='VarianceCovarianceHead'), correlation=dict(type='CrossCorrelationHead')
)


@pytest.fixture
def fake_world():
    """Collectives of 8 processes that return at once."""
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=W)
    yield
    dist.destroy_process_group()


def returned(state, bucket):
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class Convolutions(nn.Sequential):
    out_dim = 64

    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.BatchNorm2d(64))

    def forward(self, x):
        return super().forward(x).relu().mean((2, 3))


def plain_neck():
    """The same projector of PyTorch's own layers: it is called once a view, and autocast keeps copies."""
    layers = [
        nn.Linear(64, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.BatchNorm1d(HIDDEN),
    ]
    neck = nn.Sequential(*layers, nn.ReLU(), nn.Linear(HIDDEN, Q, bias=False))
    neck.out_dim = Q
    return neck


def peaks(neck, wrap, layout='rows'):
    """(bytes after the forward pass, at the peak, after the step) beside what was there before the step."""
    torch.manual_seed(0)
    head = dict(HEADS['L3'], alignment_weight=1.22 * Q, reduction='element', layout=layout)
    model = wrap(JointEmbedding(Convolutions(), neck, head).train())
    model.register_comm_hook(None, returned)
    optimizer = LARS(model.parameters(), lr=0.1, weight_decay=1e-6)
    wrapper = PretrainOptimWrapper(optimizer, precision='bfloat16')
    batch = dict(inputs=list(torch.randn(2, B, 3, 32, 32)), sample_index=torch.arange(B))

    def step():
        with wrapper.optim_context(model):
            losses = model(**batch)
        after_forward.append(live.now)
        wrapper.update_params(model.module.parse_losses(losses)[0])

    live, after_forward = LiveBytes(), []
    for _ in range(2):  # momentum and buckets are there from the first step on
        step()
    state = [
        value for of_one in optimizer.state.values() for value in of_one.values() if isinstance(value, torch.Tensor)
    ]
    with live.outside(*model.parameters(), *model.buffers(), *state):
        step()
    assert all(p.grad is None for p in model.parameters())
    return after_forward[-1], live.peak, live.now


def test_a_step_holds_weights_gradients_momentum_activations_and_one_tensor(fake_world, monkeypatch):
    monkeypatch.setattr(necks, '_BLOCK', 2**12)  # as small beside the last weight as it is at q = 32 768
    neck = dict(type='MLPNeck', dims=(HIDDEN, HIDDEN, Q))
    activations, peak, left = peaks(neck, lambda net: wrap_model(net, {}, distributed=True))
    copies, textbook, _ = peaks(plain_neck(), DistributedDataParallel)
    weights = 4 * (64 * HIDDEN + HIDDEN * HIDDEN + HIDDEN * Q)
    assert copies - activations > 0.45 * weights  # what autocast keeps
    assert peak - activations < 1.1 * LARGEST  # the gradient of the last weight, until it is in its bucket
    assert textbook - peak > 0.4 * LARGEST
    assert left < 0.05 * LARGEST


def test_of_a_sharded_layer_a_rank_holds_its_part(fake_world, monkeypatch):
    """Weights, gradient and momentum; with 8 rows of each rank, as many embeddings as without."""
    monkeypatch.setattr(necks, '_BLOCK', 2**12)
    necks_of = {sharded: dict(type='MLPNeck', dims=(HIDDEN, HIDDEN, Q), sharded=sharded) for sharded in (False, True)}
    held = {}
    for sharded, neck in necks_of.items():
        model = wrap_model(JointEmbedding(Convolutions(), neck, HEADS['L3']), {}, distributed=True)
        last = model.module.neck[6].weight
        assert getattr(last, '_ddp_ignored', False) is sharded
        optimizer = LARS(model.parameters(), lr=0.1)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
        held[sharded] = last.nbytes, last.grad.nbytes, optimizer.state[last]['momentum_buffer'].nbytes
    assert held[False] == 3 * (LARGEST,)
    assert held[True] == 3 * (LARGEST // W,)
    steps = {
        s: peaks(neck, lambda net: wrap_model(net, {}, distributed=True), 'columns') for s, neck in necks_of.items()
    }
    over = {sharded: peak - activations for sharded, (activations, peak, _) in steps.items()}
    assert over[True] < over[False] / 2, steps


@pytest.mark.parametrize('name', HEADS)
def test_an_objective_on_shards_holds_no_more_than_on_columns(fake_world, name):
    peaks = []
    for columns, shape in ((None, (2, 8, Q)), (Q, (2, 8 * W, Q // W))):
        head, z = MODELS.build(dict(HEADS[name], layout='columns')), torch.randn(shape, requires_grad=True)
        embeddings = replace(Embeddings.of(z), columns=columns)
        with LiveBytes().outside(z) as live:
            sum(value for word, value in head(embeddings).items() if word.startswith('loss_')).backward()
        peaks.append(live.peak)
    assert peaks[1] <= 1.05 * peaks[0], peaks
