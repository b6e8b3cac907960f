"""The switch of torch.compile: what runs through it, what is said where it cannot, and whole objectives in one graph."""

import warnings
from types import SimpleNamespace

import pytest
import torch

from mmkernel.kernels import Kernel, LegendreKernel, RBFKernel, fused, kernel_energy
from mmkernel.models import (
    CrossCorrelationHead,
    Embeddings,
    InfoNCEHead,
    KernelMMDHead,
    VarianceCovarianceHead,
)


class Own(Kernel):
    """A kernel with phi alone: its slope is traced in forward mode."""

    def phi(self, t, q):
        return (3 * t).exp() + t.abs()


class Untraceable(Kernel):
    def phi(self, t, q):
        torch._dynamo.graph_break()
        return t**3


HEADS = [
    KernelMMDHead(LegendreKernel((1.0, 40.0, 40.0)), alignment_weight=100.0),
    KernelMMDHead(LegendreKernel((1.0,)), alignment_weight=100.0),
    KernelMMDHead(RBFKernel(2.5), statistic='U', log=True, precision='float16'),
    KernelMMDHead(Own(), statistic='U'),
    VarianceCovarianceHead(),
    CrossCorrelationHead(),
    InfoNCEHead(),
]
every_head = pytest.mark.parametrize('head', HEADS, ids=lambda head: type(head).__name__)


@pytest.fixture
def compiled(monkeypatch):
    """Switched on, without the code that a compiler would generate; the functions that went through it."""
    seen = []

    def compile_function(function):
        seen.append(function.__name__)
        return torch.compile(function, fullgraph=True, backend='eager')

    torch._dynamo.reset()
    monkeypatch.setenv('MMKERNEL_COMPILE', '1')
    monkeypatch.setattr(fused, '_compiled', compile_function)
    monkeypatch.setattr(fused, '_eager', set())
    return seen


def trained(head, z):
    views = (0, 1)
    parts = head.loss(Embeddings(z, z, z, [(1, 0), (0, 1)], torch.arange(z.shape[1]), views, views))
    return sum(value for name, value in parts.items() if name.startswith('loss_'))


def value_and_gradient(loss, n=12, q=20):
    z = torch.randn(2, n, q, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    value = loss(z)
    return value.detach(), torch.autograd.grad(value, z)[0]


@every_head
def test_folds(head, compiled, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        ours = value_and_gradient(lambda z: trained(head, z))
    assert compiled
    monkeypatch.setenv('MMKERNEL_COMPILE', '0')
    count = len(compiled)
    torch.testing.assert_close(ours, value_and_gradient(lambda z: trained(head, z)), rtol=1e-10, atol=1e-12)
    assert len(compiled) == count


@pytest.mark.filterwarnings('ignore')
@every_head
def test_whole_objectives(head):
    torch._dynamo.reset()
    for part in head.modules():
        part.__dict__.pop('_kept', None)  # what a kernel has found already would hide how it finds it
    whole = value_and_gradient(torch.compile(lambda z: trained(head, z), fullgraph=True, backend='aot_eager'))
    torch.testing.assert_close(whole, value_and_gradient(lambda z: trained(head, z)), rtol=1e-10, atol=1e-12)


def test_a_phi_that_cannot_be_traced_says_so_once(compiled):
    z = torch.randn(6, 4)
    with pytest.warns(UserWarning, match='Untraceable runs without torch.compile.*MMKERNEL_COMPILE=0') as said:
        energies = [kernel_energy(z, Untraceable()) for _ in range(3)]
    assert sum('without torch.compile' in str(warning.message) for warning in said) == 1
    u = torch.nn.functional.normalize(z, dim=1)
    for energy in energies:
        torch.testing.assert_close(energy, ((u @ u.T) ** 3).mean())


def test_errors_of_phi_are_its_own(compiled):
    class Fragile(Kernel):
        def phi(self, t, q):
            if t.shape[-1] == 7:
                raise KeyError('seven')
            return t**3

    with pytest.raises(KeyError, match='seven'):
        kernel_energy(torch.randn(7, 4), Fragile())


@pytest.mark.parametrize(
    'word, where', [('', {'cuda32'}), ('0', set()), ('1', {'cpu32', 'cpu64', 'cuda32'})], ids=['unset', '0', '1']
)
def test_where_functions_are_compiled(monkeypatch, word, where):
    monkeypatch.setenv('MMKERNEL_COMPILE', word)
    kinds = {f'{d}{b}': (d, getattr(torch, f'float{b}')) for d in ('cpu', 'cuda') for b in (32, 64)}
    found = {
        name
        for name, (device, dtype) in kinds.items()
        if fused.switched_on(SimpleNamespace(device=torch.device(device), dtype=dtype))
    }
    assert found == where
