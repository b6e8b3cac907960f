"""The meter of host reads sees what would make the host wait for a GPU, and nothing else."""

import numpy as np
import pytest
import torch
from host_reads import HostReads

READS = {
    'item': lambda z: z.sum().item(),
    'bool': lambda z: bool((z > 0).all()),
    'if': lambda z: 1 if z.sum() > 0 else 0,
    'float': lambda z: float(z.sum()),
    'int': lambda z: int(z.argmax()),
    'index': lambda z: [0] * 20 and range(20)[z.argmax()],
    'tolist': lambda z: z.tolist(),
    'numpy': lambda z: z.numpy(),
    'asarray': lambda z: np.asarray(z),
    'cpu': lambda z: z.cpu(),
    'to': lambda z: z.to('cpu'),
    'repr': lambda z: repr(z),
    'format': lambda z: f'{z.sum():.3f}',
    'equal': lambda z: torch.equal(z, z),
    'allclose': lambda z: torch.allclose(z, z),
    'unique': lambda z: z.unique(),
    'nonzero': lambda z: z.nonzero(),
    'mask': lambda z: z[z > 0],
    'masked write': lambda z: z.__setitem__(z > 0, 0.0),
    'masked_select': lambda z: z.masked_select(z > 0),
    'repeats': lambda z: z[0].repeat_interleave((z[0] > 0).long()),
    'cholesky': lambda z: torch.linalg.cholesky(z.T @ z + torch.eye(3, device=z.device)),
    'list onto the device': lambda z: torch.tensor([1.0], device=z.device),
    'list as an index': lambda z: z[[0, 1]],
    'host index': lambda z: z[torch.tensor([0, 1])],
    'host rows': lambda z: torch.ones(5).to(z.device),
    'copy_': lambda z: z.copy_(torch.ones(4, 3)),
}
NO_READS = {
    'host': lambda z: torch.ones(2).sum().item(),
    'arithmetic': lambda z: (z * 2).where(z > 0, 0.0).sum().clamp(min=1),
    'device index': lambda z: z[torch.arange(2, device=z.device)],
    'slices': lambda z: z[1:, None, :2],
    'dtype': lambda z: z.to(torch.float64),
    'asynchronous': lambda z: z.to('cpu', non_blocking=True).tolist(),
    'sent': lambda z: torch.ones(5).to(z.device, non_blocking=True),
    'masked_fill': lambda z: z.masked_fill_(z > 0, 0),
    'eigh': lambda z: torch.linalg.eigh(z.T @ z),
    'repeats': lambda z: z.repeat_interleave(2, 0),
}


@pytest.mark.parametrize('name', READS)
def test_the_meter_sees(name):
    assert sum(metered(READS[name]).values()) == 1


@pytest.mark.parametrize('name', NO_READS)
def test_the_meter_does_not_see(name):
    assert not metered(NO_READS[name])


def metered(function):
    w = torch.nn.Linear(5, 3).requires_grad_(False)
    with HostReads(w.parameters()) as meter:
        function(w(torch.randn(4, 5)))
    return meter.reads


def test_gradients_lie_on_the_device_too():
    w = torch.nn.Linear(5, 3)
    with HostReads(w.parameters()) as meter:
        w(torch.randn(4, 5)).square().sum().backward()
        w.weight.grad.norm().item()
    assert sum(meter.reads.values()) == 1
