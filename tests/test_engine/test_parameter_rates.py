"""Parameter groups by axes and by part: their rates, and the schedule on both."""

import pytest
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmkernel.engine import PretrainOptimWrapper, WarmupCosineLR


def build(**paramwise):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2, bias=False))
    return model, build_optim_wrapper(
        model,
        dict(
            type='PretrainOptimWrapper',
            constructor='VectorRateConstructor',
            paramwise_cfg=paramwise,
            optimizer=dict(type='LARS', lr=0.2, weight_decay=1e-6),
        ),
    )


def test_two_groups():
    model, wrapper = build(vector_lr_mult=0.1, vector_decay_mult=0.0)
    assert isinstance(wrapper, PretrainOptimWrapper)
    weights, vectors = wrapper.optimizer.param_groups
    assert {id(p) for p in weights['params']} == {id(model[0].weight), id(model[2].weight)}
    assert {id(p) for p in vectors['params']} == {id(model[0].bias), id(model[1].weight), id(model[1].bias)}
    assert (weights['lr'], weights['weight_decay']) == (0.2, 1e-6)
    assert (vectors['lr'], vectors['weight_decay']) == (pytest.approx(0.02), 0.0)


def test_the_schedule_keeps_their_ratio():
    _, wrapper = build(vector_lr_mult=0.1)
    scheduler = WarmupCosineLR(wrapper, total_steps=20, warmup_steps=4)
    for step in (1, 4, 11):
        scheduler.go_to(step)
        weights, vectors = wrapper.optimizer.param_groups
        assert vectors['lr'] == pytest.approx(weights['lr'] * 0.1)
        assert weights['lr'] > 0


def test_unknown_option():
    with pytest.raises(ValueError, match='paramwise_cfg takes vector_lr_mult'):
        build(bias_lr_mult=0.1)


def parts(model, **paramwise):
    optimizer = dict(type='SGD', lr=5.0, weight_decay=1e-4)
    return build_optim_wrapper(
        model,
        dict(
            type='PretrainOptimWrapper', constructor='PartRateConstructor', paramwise_cfg=paramwise, optimizer=optimizer
        ),
    )


def test_parts_have_their_own_rates():
    model = nn.ModuleDict(dict(backbone=nn.Linear(3, 4), head=nn.Linear(4, 2), header=nn.Linear(4, 2)))
    model['head'].bias.requires_grad_(False)
    rest, backbone, head = parts(model, backbone=dict(lr=0.02), head=dict(weight_decay=0.0)).optimizer.param_groups
    assert [len(group['params']) for group in (rest, backbone, head)] == [2, 2, 1]
    assert [group['lr'] for group in (rest, backbone, head)] == [5.0, 0.02, 5.0]
    assert [group['weight_decay'] for group in (rest, backbone, head)] == [1e-4, 1e-4, 0.0]
    (only,) = parts(model).optimizer.param_groups
    assert len(only['params']) == 5


def test_a_part_without_trainable_parameters_is_refused():
    model = nn.ModuleDict(dict(backbone=nn.Linear(3, 4), head=nn.Linear(4, 2)))
    model['backbone'].requires_grad_(False)
    with pytest.raises(ValueError, match=r"below 'backbone' \(frozen\?\)\. Parts: backbone, head"):
        parts(model, backbone=dict(lr=0.02))
