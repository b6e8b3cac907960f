"""A kernel is tried when it is made: each broken promise is named with its fix, and no sound kernel is refused."""

import abc
import copy
import dataclasses
import inspect
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmkernel.kernels import Kernel, LaplaceKernel, RBFKernel, kernel_energy
from mmkernel.registry import KERNELS


def no_grad(self, t, q):
    with torch.no_grad():
        return t.exp()


def assigned(self, t, q):
    t[t < 0] = 0
    return t.exp()


BROKEN = {
    'changes t in place': [
        lambda self, t, q: t.mul_(2).exp_(),
        lambda self, t, q: t.data.mul_(2).exp(),
        lambda self, t, q: torch.exp(t, out=t),
        assigned,
    ],
    'returned shape': [lambda self, t, q: t.sum(), lambda self, t, q: t.flatten(), lambda self, t, q: t[None]],
    'returned dtype': [
        lambda self, t, q: t.double(),
        lambda self, t, q: t.half(),
        lambda self, t, q: torch.complex(t, t),
        lambda self, t, q: t > 0,
        lambda self, t, q: t * torch.tensor([2.0], dtype=torch.float64),
    ],
    'returned a (float|tuple|NoneType)': [lambda self, t, q: 1.0, lambda self, t, q: (t, t), lambda self, t, q: None],
    'cut off from autograd': [
        no_grad,
        lambda self, t, q: t.detach().exp(),
        lambda self, t, q: t * t.detach(),
        lambda self, t, q: torch.tensor(t.tolist(), dtype=t.dtype),
    ],
    'failed at t of shape': [
        lambda self, t, q: torch.from_numpy(np.exp(t.numpy())),
        lambda self, t: t.exp(),
        lambda self, t, q: t.no_such_method(),
        lambda self, t, q: float(t),
    ],
    'is NaN at t': [lambda self, t, q: (t - 0.3).log(), lambda self, t, q: t**1.5],
    'is infinite at t': [lambda self, t, q: 1 / t.abs(), lambda self, t, q: -torch.log1p(t)],
    'branch not taken': [lambda self, t, q: torch.where(t > 0, t.sqrt(), 0)],
    'gives other values': [
        lambda self, t, q: t.softmax(-1),
        lambda self, t, q: t - t.mean(),
        lambda self, t, q: t / t.max(),
        lambda self, t, q: t.cumsum(0),
        lambda self, t, q: torch.full_like(t, t.mean().item()),
        lambda self, t, q: t + torch.rand_like(t),
        lambda self, t, q: F.dropout(t, 0.5),
    ],
    'stays on the CPU': [lambda self, t, q: t + torch.linspace(0, 1, 2, dtype=t.dtype)[:1]],
}


@pytest.mark.parametrize('words, phi', [(words, phi) for words, phis in BROKEN.items() for phi in phis])
def test_a_broken_phi_is_named(words, phi):
    with pytest.raises(ValueError, match=rf'Broken\.(phi|dphi).*{words}'):
        type('Broken', (Kernel,), dict(phi=phi))()


def test_the_trial_draws_no_random_number():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    RBFKernel(1.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    'phi',
    [
        torch.abs,
        torch.relu,
        torch.sign,
        torch.acos,
        torch.ones_like,
        lambda t: t.new_ones(1).expand_as(t),
        lambda t: (t > 0.1).to(t),
        lambda t: -torch.log1p(-t),
        lambda t: torch.exp(4000 * (t - 1)),
        lambda t: 1e8 + t,
        lambda t: t * torch.tensor(2.0),
        lambda t: t.exp() if bool((t < 2).all()) else t,
        lambda t: t,
    ],
)
def test_sound_kernels_pass(phi):
    kernel = type('Sound', (Kernel,), dict(phi=lambda self, t, q: phi(t)))()
    z = torch.randn(8, 4, requires_grad=True)
    kernel_energy(z, kernel, statistic='U').backward()
    assert bool(z.grad.isfinite().all())


class Shifted(Kernel):
    """phi(t) = exp(slope t), made in two steps of __init__."""

    def __init__(self, slope=1.0):
        super().__init__()
        self.slope = slope

    def phi(self, t, q):
        return (self.slope * t).exp()


class Steeper(Shifted):
    def __init__(self, slope=1.0, times=2.0):
        super().__init__(slope)
        self.times = times

    def phi(self, t, q):
        return (self.slope * self.times * t).exp()


def test_the_trial_waits_for_the_last_init():
    assert Steeper().value_at_one(8) == pytest.approx(np.exp(2))
    assert list(inspect.signature(Steeper).parameters) == ['slope', 'times']
    with pytest.raises(ValueError, match='is infinite'):
        Steeper(times=1e4)


def test_an_init_of_any_origin():
    @dataclasses.dataclass(eq=False)
    class Data(Kernel, abc.ABC):
        slope: float = 1.0
        change: bool = False

        def __post_init__(self):
            super().__init__()

        def phi(self, t, q):
            return t.mul_(2) if self.change else self.slope * t

    assert Data(2.0).value_at_one(8) == 2
    with pytest.raises(ValueError, match='changes t in place'):
        Data(change=True)


def test_an_init_that_forgets_its_parent_and_a_parameter():
    class Orphan(Kernel):
        def __init__(self):
            self.slope = 1.0

        def phi(self, t, q):
            return self.slope * t

    class Learned(Kernel):
        def __init__(self, learn):
            super().__init__()
            self.w = torch.nn.Parameter(torch.ones(()), requires_grad=learn)

        def phi(self, t, q):
            return self.w * t

    with pytest.raises(ValueError, match=r'Orphan\.__init__ must call super\(\)\.__init__\(\)'):
        Orphan()
    with pytest.raises(ValueError, match='Learned has the parameter w'):
        Learned(True)
    Learned(False)


def test_a_config_is_tried_too():
    @KERNELS.register_module(name='BrokenByConfig', force=True)
    class Broken(Kernel):
        def phi(self, t, q):
            return t.mul_(2)

    with pytest.raises(ValueError, match='changes t in place'):
        KERNELS.build(dict(type='BrokenByConfig'))
    KERNELS.module_dict.pop('BrokenByConfig')


def test_constants_move_with_the_model():
    class Margin(Kernel):
        def __init__(self, buffer):
            super().__init__()
            if buffer:
                self.register_buffer('m', torch.tensor([0.25]))
            else:
                self.m = torch.tensor([0.25])

        def phi(self, t, q):
            return (t - self.m).relu()

    assert Margin(True).value_at_one(8) == 0.75
    with pytest.raises(ValueError, match='register_buffer'):
        Margin(False)


@pytest.mark.parametrize('error', [ValueError, AssertionError, KeyError])
def test_a_kernel_of_one_width(error):
    class Tied(Kernel):
        def __init__(self, width):
            super().__init__()
            self.width = width

        def phi(self, t, q):
            if q != self.width:
                raise error(f'made for {self.width}')
            return t.exp()

    assert Tied(192).coefficients(192, 1)[1] > 0
    with pytest.raises(ValueError, match=r'made for 1\b'):
        Tied(1)


def test_slopes_and_closed_forms_of_another_phi():
    class Slope(Shifted):
        def dphi(self, t, q):
            return 2 * self.phi(t, q)

    class Expansion(RBFKernel):
        def phi(self, t, q):
            return super().phi(t, q) ** 2

        dphi = Kernel.dphi

    class Powers(Shifted):
        def monomials(self, q):
            return (1.0, 1.0)

    with pytest.raises(ValueError, match=r'Slope\.dphi is .* differences of phi say .*Correct dphi'):
        Slope()
    with pytest.raises(ValueError, match=r'Expansion\.coefficients.*its phi has'):
        Expansion()
    with pytest.raises(ValueError, match=r'Powers\.monomials'):
        Powers()


def test_values_are_kept_and_follow_the_kernel(monkeypatch):
    made = []
    kernel = Shifted()
    monkeypatch.setattr(Shifted, 'phi', lambda self, t, q: made.append(q) or (self.slope * t).exp())
    whole = kernel + LaplaceKernel()
    first = whole.coefficients(16, 2)
    count = len(made)
    first.zero_()
    assert whole.coefficients(16, 2)[0] > 0
    assert (whole.minimum(16), whole.value_at_one(16)) == (whole.minimum(16), whole.value_at_one(16))
    assert len(made) == count + 2
    kernel.slope = 2.0
    assert whole.value_at_one(16) == pytest.approx(np.exp(2) + 1)
    torch.testing.assert_close(
        whole.coefficients(16, 2), Shifted(2.0).coefficients(16, 2) + LaplaceKernel().coefficients(16, 2)
    )


def test_values_follow_lists_and_buffers():
    class Mixed(Kernel):
        def __init__(self):
            super().__init__()
            self.factors = [1.0]
            self.table = np.zeros(5000)
            self.register_buffer('m', torch.zeros(1))

        def phi(self, t, q):
            return self.factors[0] * t + self.m + self.table[2500].item()

    kernel = Mixed()
    seen = [kernel.value_at_one(4)]
    kernel.factors[0] = 3.0
    seen.append(kernel.value_at_one(4))
    kernel.m.add_(1)
    seen.append(kernel.value_at_one(4))
    kernel.m = torch.full((1,), 2.0)
    seen.append(kernel.value_at_one(4))
    kernel.table[2500] = 4.0
    seen.append(kernel.value_at_one(4))
    assert seen == [1, 3, 4, 5, 9]


def test_copies_and_pickles_start_without_kept_values():
    kernel = Steeper()
    b = kernel.coefficients(8, 3)
    for twin in (copy.deepcopy(kernel), pickle.loads(pickle.dumps(kernel))):
        assert '_kept' not in vars(twin)
        assert torch.equal(twin.coefficients(8, 3), b)
    assert list(kernel.state_dict()) == []
    twin.times = 1.0
    assert not torch.equal(twin.coefficients(8, 3), b)
    assert torch.equal(kernel.coefficients(8, 3), b)


def test_kept_values_compile():
    kernel = Shifted() * 2.0

    @torch.compile(fullgraph=True, backend='eager')
    def shifted(t):
        return kernel.phi(t, 16) - kernel.value_at_one(16)

    t = torch.linspace(-1, 1, 5)
    torch.testing.assert_close(shifted(t), kernel.phi(t, 16) - kernel.value_at_one(16))


@pytest.mark.parametrize('other', [copy.copy, copy.deepcopy, lambda kernel: pickle.loads(pickle.dumps(kernel))])
def test_copies_compile_to_values_of_their_own(other):
    @torch.compile(fullgraph=True, backend='eager')
    def above_least(kernel, t):
        return kernel.phi(t, 16) - kernel.minimum(16)

    torch._dynamo.reset()
    kernel, t = RBFKernel(2.0) + RBFKernel(3.0), torch.zeros(2)
    twin = other(kernel)
    if other is copy.copy:
        twin.kernels = torch.nn.ModuleList([RBFKernel(1.0)])
    for scale in (0.5, 0.7, 0.9):  # after the second, torch.compile takes a float for a variable
        for k in (kernel, twin):
            torch.testing.assert_close(above_least(k, t), k.phi(t, 16) - k.minimum(16))
        twin.kernels[0].scale = scale


def test_kernels_are_made_under_inference_mode_and_no_grad():
    with torch.inference_mode():
        assert Shifted().coefficients(1024, 4)[4] == pytest.approx(1 / 24, rel=0.02)
    with torch.no_grad():
        assert Steeper().coefficients(1024, 4)[1] == pytest.approx(2, rel=0.01)
