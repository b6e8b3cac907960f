"""LARS against trajectories of the official code."""

from pathlib import Path

import numpy as np
import pytest
import torch
from launches import Launches

from mmkernel.engine import LARS

GOLDEN = Path(__file__).parents[1] / 'golden'
NAMES = ('weight', 'bias', 'bnweight')


def trajectory(golden, parameters, optimizer):
    """Parameters after each step under the golden gradients."""
    for step in range(len(golden['in_grad_weight'])):
        for name, p in parameters.items():
            p.grad = torch.from_numpy(golden[f'in_grad_{name}'][step]).to(p).clone()
        optimizer.step()
        yield step, {name: p.detach().clone() for name, p in parameters.items()}


@pytest.fixture
def golden():
    with np.load(GOLDEN / 'lars_vicreg_wd1e-06.npz') as file:
        return dict(file)


def make(golden, dtype=torch.float64):
    parameters = {name: torch.nn.Parameter(torch.from_numpy(golden[f'in_{name}']).to(dtype)) for name in NAMES}
    settings = dict(lr=float(golden['hp_lr']), momentum=float(golden['hp_momentum']))
    decay, eta = float(golden['hp_weight_decay']), float(golden['hp_eta'])
    return parameters, LARS(list(parameters.values()), **settings, weight_decay=decay, trust_coefficient=eta)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_golden_trajectory(golden, dtype, tolerance):
    parameters, optimizer = make(golden, dtype)
    for step, now in trajectory(golden, parameters, optimizer):
        for name in NAMES:
            np.testing.assert_allclose(now[name].numpy(), golden[f'out_{name}'][step], rtol=tolerance, atol=tolerance)
            buffer = optimizer.state[parameters[name]]['momentum_buffer'].numpy()
            np.testing.assert_allclose(buffer, golden[f'out_mu_{name}'][step], rtol=tolerance, atol=tolerance)


def test_zero_weight_and_zero_gradient_get_ratio_one():
    zero, still = torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.ones(3, 2))
    zero.grad, still.grad = torch.full((3, 2), 2.0), torch.zeros(3, 2)
    LARS([zero, still], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(zero.detach(), torch.full((3, 2), -0.2))
    torch.testing.assert_close(still.detach(), torch.ones(3, 2))


def test_biases_get_neither_decay_nor_scaling():
    bias = torch.nn.Parameter(torch.full((4,), 3.0))
    bias.grad = torch.full((4,), 0.5)
    LARS([bias], lr=1.0, weight_decay=10.0).step()
    torch.testing.assert_close(bias.detach(), torch.full((4,), 2.5))


def test_channels_last_weights_keep_their_layout_and_value():
    torch.manual_seed(0)
    plain = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    last = torch.nn.Parameter(plain.detach().clone(memory_format=torch.channels_last))
    a, b = LARS([plain], lr=0.3, weight_decay=1e-2), LARS([last], lr=0.3, weight_decay=1e-2)
    for _ in range(3):
        plain.grad = torch.randn(4, 3, 3, 3)
        last.grad = plain.grad.clone(memory_format=torch.channels_last)
        a.step()
        b.step()
    torch.testing.assert_close(plain, last)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert b.state[last]['momentum_buffer'].is_contiguous(memory_format=torch.channels_last)


def test_frozen_parameters_stay_and_state_round_trips(golden):
    parameters, optimizer = make(golden)
    frozen = torch.nn.Parameter(torch.ones(2, 2))
    optimizer.add_param_group(dict(params=[frozen]))
    list(trajectory(golden, parameters, optimizer))
    again, other = make(golden)
    other.add_param_group(dict(params=[torch.nn.Parameter(torch.ones(2, 2))]))
    other.load_state_dict(optimizer.state_dict())
    torch.testing.assert_close(frozen.detach(), torch.ones(2, 2))
    torch.testing.assert_close(
        other.state[again['weight']]['momentum_buffer'], optimizer.state[parameters['weight']]['momentum_buffer']
    )


def test_negative_settings_are_refused():
    with pytest.raises(ValueError, match='lr=-1'):
        LARS([torch.nn.Parameter(torch.ones(1))], lr=-1)


def separate(p, g, lr, decay, eta, clip, eps=1e-8):
    """One step of the ratio with separate norms, written out (momentum buffer still zero)."""
    if p.norm() == 0 or g.norm() == 0:
        return p - lr * g
    ratio = eta * p.norm() / (g.norm() + decay * p.norm() + eps)
    return p - lr * (min(ratio / lr, torch.ones(())) if clip else ratio) * (g + decay * p)


@pytest.mark.parametrize('clip', [False, True])
@pytest.mark.parametrize('eta', [1e-3, 2.0])
def test_separate_norms_scale_every_parameter(clip, eta):
    torch.manual_seed(0)
    values = [torch.randn(4, 3), torch.randn(5), torch.zeros(3), torch.randn(2)]
    gradients = [torch.randn(4, 3), torch.randn(5), torch.ones(3), torch.zeros(2)]
    parameters = [torch.nn.Parameter(v.clone()) for v in values]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    LARS(
        parameters, lr=0.3, weight_decay=0.1, trust_coefficient=eta, norms='separate', scale_all=True, clip=clip
    ).step()
    for p, v, g in zip(parameters, values, gradients, strict=True):
        torch.testing.assert_close(p.detach(), separate(v, g, 0.3, 0.1, eta, clip))


def test_separate_norms_without_biases_and_at_learning_rate_zero():
    weight, bias = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    weight.grad, bias.grad = torch.ones(2, 2), torch.ones(2)
    optimizer = LARS([weight, bias], lr=0.0, weight_decay=0.1, norms='separate', clip=True)
    optimizer.step()
    assert torch.isfinite(optimizer.state[weight]['momentum_buffer']).all()
    torch.testing.assert_close(weight.detach(), torch.ones(2, 2))
    torch.testing.assert_close(optimizer.state[bias]['momentum_buffer'], torch.ones(2))


def test_unknown_norms_are_refused():
    with pytest.raises(ValueError, match="LARS.norms is 'joint'"):
        LARS([torch.nn.Parameter(torch.ones(1))], lr=1, norms='both')


def three_steps(convert, gradient_of, **options):
    torch.manual_seed(0)
    parameters = [
        torch.nn.Parameter(convert(torch.randn(*shape))) for shape in ((6, 3, 3, 3), (7, 5), (9,), (2, 400000))
    ]
    optimizer = LARS(parameters, lr=0.3, weight_decay=0.1, **options)
    for _ in range(3):
        for p in parameters:
            p.grad = gradient_of(torch.randn(p.shape))
        optimizer.step()
    return parameters


@pytest.mark.parametrize(
    'options', [{}, dict(norms='separate', scale_all=True), dict(norms='separate', clip=True), dict(clip=True)]
)
@pytest.mark.parametrize('last', [False, True])
def test_a_gradient_in_another_order_of_storage_counts_the_same(options, last):
    """The fused kernel walks memory; float64 is the reference."""

    def ordered(x):
        return x.to(memory_format=torch.channels_last) if last and x.ndim == 4 else x

    exact = three_steps(torch.Tensor.double, torch.Tensor.double, **options)
    for gradient_of in (ordered, lambda x: x):
        for p, expected in zip(three_steps(ordered, gradient_of, **options), exact, strict=True):
            torch.testing.assert_close(p.double(), expected, rtol=1e-5, atol=1e-6)


LENGTHS = dict(conv=53, vector=107)  # of a ResNet-50: convolutions and its linear layer, norms and biases


def resnet_like(**options):
    """Parameters in the number and with the axes of a ResNet-50's, gradients included."""
    torch.manual_seed(0)
    shapes = [(4, 3 + n % 5, 3, 3) for n in range(LENGTHS['conv'])] + [(4,)] * LENGTHS['vector']
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = LARS(parameters, lr=0.3, weight_decay=1e-4, **options)
    return parameters, optimizer


def set_gradients(parameters, value=None):
    for p in parameters:
        p.grad = torch.randn_like(p)
    if value is not None:
        parameters[3].grad.view(-1)[1] = value


@pytest.mark.parametrize(
    'options, launches', [({}, 80), (dict(norms='separate', clip=True), 80), (dict(scale_all=True), 190)]
)
def test_a_step_takes_few_kernels_and_reads_nothing(options, launches):
    """One kernel scales each weight by a ratio of its own; everything else is a handful whatever their number."""
    parameters, optimizer = resnet_like(**options)
    set_gradients(parameters)
    optimizer.step()  # momentum is there from now on
    set_gradients(parameters)
    optimizer.found_inf = torch.zeros(())
    with Launches() as counted:
        optimizer.step()
    assert counted.total <= launches, counted
    assert counted.host_reads == 0
    assert counted.largest <= 8 * len(parameters)  # no temporary beside one number per parameter


@pytest.mark.parametrize('options', [{}, dict(norms='separate', clip=True, scale_all=True), dict(momentum=0.0)])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), None])
def test_a_step_that_is_skipped_leaves_every_bit(options, bad):
    parameters, optimizer = resnet_like(**options)
    set_gradients(parameters)
    optimizer.step()
    kept = [x.detach().clone() for p in parameters for x in (p, optimizer.state[p]['momentum_buffer'])]
    set_gradients(parameters, bad)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    now = [x for p in parameters for x in (p, optimizer.state[p]['momentum_buffer'])]
    assert all(map(torch.equal, kept, now))
    optimizer.found_inf = torch.zeros(())
    set_gradients(parameters)
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(kept[::2], now[::2], strict=True))


def test_the_scaler_of_torch_drives_it():
    """A user's loop with torch.amp.GradScaler: the step that it leaves to the optimizer is that of unscaled gradients."""
    trained = []
    for scaled in (True, False):
        p = torch.nn.Parameter(torch.arange(6.0).view(2, 3))
        optimizer, scaler = LARS([p], lr=0.3, weight_decay=0.1), torch.amp.GradScaler('cpu', enabled=scaled)
        scaler.scale(p.square().sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        trained.append(p.detach())
    torch.testing.assert_close(*trained)


def test_momentum_from_a_file_in_another_order_of_storage():
    """A run may go on with channels_last that began without."""

    def run(last):
        torch.manual_seed(0)
        return torch.nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=last))

    ours, plain = run(torch.channels_last), run(torch.contiguous_format)
    optimizers = LARS([ours], lr=0.3), LARS([plain], lr=0.3)
    plain.grad = torch.randn(4, 3, 3, 3)
    optimizers[1].step()
    optimizers[0].load_state_dict(optimizers[1].state_dict())
    ours.data.copy_(plain)
    for p, optimizer in zip((ours, plain), optimizers, strict=True):
        torch.manual_seed(1)
        p.grad = torch.empty_like(p).copy_(torch.randn(4, 3, 3, 3))
        optimizer.step()
    torch.testing.assert_close(ours, plain)


def test_a_parameter_with_gaps_is_refused():
    p = torch.nn.Parameter(torch.ones(4, 6)[:, ::2])
    p.grad = torch.ones(4, 3)
    with pytest.raises(ValueError, match=r'shape \(4, 3\) has gaps in memory'):
        LARS([p], lr=0.1).step()


def test_a_closure_is_evaluated_with_gradients_first():
    w, v = (torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2))
    first, second = LARS([w], lr=0.1), LARS([v], lr=0.1)

    def closure():
        first.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    loss = first.step(closure)
    v.square().sum().backward()
    second.step()
    assert loss.item() == 6
    assert torch.equal(w, v)
    assert (w < 1).all()
