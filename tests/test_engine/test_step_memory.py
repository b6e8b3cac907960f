"""What a step holds at its peak: rank 0 of 8 under PyTorch's fake process group, SFRIK in the proportions of q = 32 768."""

import pytest
import torch
import torch.distributed as dist
from live_bytes import LiveBytes
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.distributed.fake_pg import FakeStore

from mmkernel.engine import LARS, PretrainOptimWrapper
from mmkernel.engine.wrapping import wrap_model
from mmkernel.models import JointEmbedding, necks

HIDDEN, Q, B = 256, 1024, 2
LARGEST = 4 * HIDDEN * Q  # bytes of the last weight


@pytest.fixture
def fake_world():
    """Collectives of 8 processes that return at once."""
    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=8)
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


def peaks(neck, wrap):
    """(bytes after the forward pass, at the peak, after the step) beside what was there before the step."""
    torch.manual_seed(0)
    kernel = dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))
    head = dict(type='KernelMMDHead', kernel=kernel, alignment_weight=1.22 * Q, reduction='element', layout='rows')
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
