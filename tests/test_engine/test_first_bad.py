"""The first module with a bad value: forward, between modules, backward, in place, among several views."""

import pytest
import torch
from torch import nn

from mmkernel.engine.finite import extremes
from mmkernel.engine.first_bad import FirstBad
from mmkernel.engine.process_state import random_state
from mmkernel.engine.replaying import norm_of_gradients

NAN, INF = float('nan'), float('inf')


class Spoil(nn.Module):
    """The identity, but for row ``row`` of call ``call``."""

    def __init__(self, function, call=0, row=0):
        super().__init__()
        self.function, self.call, self.row, self.calls = function, call, row, 0

    def forward(self, x):
        self.calls += 1
        if self.calls != self.call + 1:
            return x
        return torch.cat([x[: self.row], self.function(x[self.row : self.row + 1]), x[self.row + 1 :]])


class Images(nn.Module):
    def forward(self, data, training=False):
        return data


class Net(nn.Module):
    def __init__(self, part=None, own=None):
        super().__init__()
        self.data_preprocessor, self.own = Images(), own
        layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), part or nn.Identity(), nn.ReLU(inplace=True), nn.Linear(6, 3)]
        self.backbone = nn.Sequential(*layers)

    def forward(self, inputs, sample_index):
        a, b = (self.backbone(view) for view in inputs)
        return self.own(a, b) if self.own else (a - b).square().mean()


def look_at(net, inputs=None):
    torch.manual_seed(0)
    inputs = list(torch.randn(2, 5, 4)) if inputs is None else inputs
    with FirstBad(net) as look:
        loss = net(**net.data_preprocessor(dict(inputs=inputs, sample_index=torch.arange(10, 15))))
        if look.found is None:
            loss.backward()
    return look.found


def root(x):
    """The square root of 0, whose slope is infinite: NaN once it is multiplied by 0."""
    return x * (x - x).sum(1, keepdim=True).sqrt()


def test_a_finite_step_finds_nothing():
    before = torch.is_anomaly_enabled()
    assert look_at(Net()) is None
    assert torch.is_anomaly_enabled() == before


@pytest.mark.parametrize('value', [NAN, INF])
def test_the_output_of_a_module(value):
    found = look_at(Net(Spoil(lambda x: x * value, call=1, row=3)))
    assert (found.where, found.module, found.kind) == ('output', 'backbone.2', 'Spoil')
    assert (found.views, found.images) == ([1], [13])
    assert found.inputs['input.0']['share_not_finite'] == 0


def test_a_bad_parameter_is_shown():
    net = Net()
    net.backbone[0].weight.data[2, 1] = NAN
    found = look_at(net)
    assert (found.where, found.module, found.views) == ('output', 'backbone.0', [0])
    assert found.images == [10, 11, 12, 13, 14]
    assert found.parameters['weight']['share_not_finite'] == pytest.approx(1 / 24)
    assert found.parameters['bias']['share_not_finite'] == 0


def test_bad_images():
    views = list(torch.randn(2, 5, 4))
    views[1][4, 2] = INF
    found = look_at(Net(), views)
    assert (found.where, found.module) == ('images', 'data_preprocessor')
    assert (found.views, found.images) == ([1], [14])


def test_code_of_the_model_between_its_parts():
    found = look_at(Net(own=lambda a, b: (a * INF - b).square().mean()))
    assert (found.where, found.module, found.kind) == ('output', '', 'Net')


def test_code_of_a_parent_before_a_part():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Tanh()

        def forward(self, x):
            return self.inner(x / 0)

    found = look_at(Net(Parent()))
    assert (found.where, found.module, found.values) == ('between', 'backbone.2', 'what goes into backbone.2.inner')


def test_backward_alone():
    found = look_at(Net(Spoil(root, call=1, row=2)))
    assert (found.where, found.module, found.operation) == ('gradient', 'backbone.2', 'SqrtBackward0')
    assert 'test_first_bad.py' in found.code
    assert 'in root' in found.code


def test_backward_in_code_of_the_model():
    found = look_at(Net(own=lambda a, b: (a - a).sum(1).sqrt().mean() + b.mean()))
    assert (found.where, found.module, found.kind, found.images) == ('gradient', '', 'Net', [10, 11, 12, 13, 14])


def test_infinity_in_backward_of_a_function_of_ones_own():
    class Spoilt(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * INF

    found = look_at(Net(Spoil(Spoilt.apply, call=0, row=1)))
    assert (found.where, found.module, found.operation) == ('gradient', 'backbone.2', 'SpoiltBackward')


def test_a_module_that_raises_leaves_the_look_whole():
    net = Net(Spoil(lambda x: 1 / 0))
    with FirstBad(net) as look, pytest.raises(ZeroDivisionError):
        net(list(torch.randn(2, 5, 4)), torch.arange(5))
    assert (look.found.where, look.found.module) == ('error', 'backbone.2')
    assert look.found.values == 'ZeroDivisionError: division by zero'
    assert not look.running
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


def test_looking_draws_nothing():
    net, before = Net(), random_state()['torch']
    with FirstBad(net):
        net(list(torch.ones(2, 5, 4)), torch.arange(5)).backward()
    assert torch.equal(random_state()['torch'], before)


def test_extremes():
    found = extremes(torch.tensor([1.0, INF, -2.0, NAN]))
    assert found == dict(shape=[4], type='float32', min=-2.0, max=1.0, share_not_finite=0.5)
    assert extremes(torch.tensor([NAN]))['min'] is None
    assert extremes(torch.zeros(0))['share_not_finite'] == 0


def test_a_norm_that_overflows_while_each_gradient_is_finite():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[0].weight.grad, net[1].weight.grad = torch.ones(2, 2), torch.full((2, 2), 1e30)
    found = norm_of_gradients(net)
    assert (found.where, found.module, found.kind) == ('norm', '1', 'Linear')
    assert found.parameters['gradient of weight']['max'] == pytest.approx(1e30)
    net[1].weight.grad.fill_(1.0)
    assert norm_of_gradients(net) is None
