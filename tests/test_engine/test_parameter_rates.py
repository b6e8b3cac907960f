"""Parameter groups by axes, by part and by layer: their rates, and the schedule on them."""

import pytest
import timm
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from timm.optim import param_groups_layer_decay
from torch import nn

from mmkernel.engine import ConfigError, PretrainOptimWrapper, WarmupCosineLR
from mmkernel.engine.config import checked, load_config
from mmkernel.engine.layer_decay import describe_layers, layer_factors
from mmkernel.engine.learning_rates import built_wrapper
from mmkernel.models import TIMMBackbone


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


def encoder(name='vit_tiny_patch16_224', **options):
    if name.startswith('vit') or name.startswith('beit'):
        options = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=3) | options
    with torch.random.fork_rng():
        return nn.ModuleDict(dict(backbone=TIMMBackbone(name, **options), neck=nn.Linear(4, 4)))


@pytest.mark.parametrize('name, options, layers', [
    ('vit_tiny_patch16_224', dict(reg_tokens=2), 5), ('vit_tiny_patch16_224', dict(global_pool='avg'), 5),
    ('vit_small_patch16_dinov3', {}, 5), ('beit_base_patch16_224', {}, 5), ('cait_xxs24_224', dict(depth=3), 5),
    ('convnext_atto', dict(depths=(1, 1, 2, 1), dims=(4, 4, 8, 8)), 7),
    ('swin_tiny_patch4_window7_224', dict(embed_dim=12, depths=(1, 2), num_heads=(1, 2)), 5),
    ('resnet18', dict(channels=(4, 4, 4, 4), layers=(1, 1, 1, 1)), 6),
])  # fmt: skip
def test_layers_have_the_rates_that_timm_gives_them_below_a_classifier(name, options, layers):
    model = encoder(name, **options)
    factors = layer_factors(model, 0.5)
    size = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=3) if name[:3] in ('vit', 'bei') else {}
    with torch.device('meta'):
        theirs = timm.create_model(name, num_classes=3, **(size | options))
    names = {id(p): key for key, p in theirs.named_parameters()}
    groups = param_groups_layer_decay(theirs, layer_decay=0.5)
    expected = {names[id(p)]: group['lr_scale'] for group in groups for p in group['params']}
    ours = {key: factors[p] for key, p in model['backbone'].named_parameters()}
    assert ours == {key: expected[key] for key in ours}
    assert min(ours.values()) == 0.5 ** (layers - 1)
    assert f'0.5: rates x {0.5 ** (layers - 1):.3g} in the first layer' in describe_layers(model, 0.5)


def layered(model, **options):
    wrapper = dict(type='PretrainOptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1), layer_decay=0.5)
    with DefaultScope.overwrite_default_scope('mmkernel'):
        return built_wrapper(wrapper | options, model)


@pytest.mark.parametrize('options', [
    dict(paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0)))),
    dict(constructor='VectorRateConstructor', paramwise_cfg=dict(vector_decay_mult=0.0)),
    dict(constructor='PartRateConstructor', paramwise_cfg=dict(neck=dict(lr=3.0))), {},
])  # fmt: skip
def test_layer_decay_goes_with_every_constructor(options):
    """What a group had stays: weight decay, rates of parts; positions and tokens are of the first layer."""
    model = encoder()
    backbone = model['backbone']
    plain = layered(model, **options, layer_decay=None).optimizer.param_groups
    before = {id(p): group for group in plain for p in group['params']}
    groups = layered(model, **options).optimizer.param_groups
    after = {id(p): group for group in groups for p in group['params']}
    assert sum(len(group['params']) for group in groups) == len(before) == len(after)
    factors = layer_factors(model, 0.5)
    for p in model.parameters():
        now, then = after[id(p)], before[id(p)]
        assert now['lr'] == then['lr'] * factors.get(p, 1.0)
        assert {k: v for k, v in now.items() if k not in ('lr', 'params')} == {
            k: v for k, v in then.items() if k not in ('lr', 'params')
        }
    for p in (backbone.pos_embed, backbone.cls_token, backbone.patch_embed.proj.weight):
        assert factors[p] == 0.5**4
    assert factors[backbone.norm.weight] == factors[backbone.blocks[2].mlp.fc1.weight] == 0.5
    assert any(p is model['neck'].weight for p in groups[0]['params'])


def test_a_step_moves_each_layer_by_its_rate_and_the_schedule_keeps_the_ratios():
    torch.manual_seed(0)
    model = encoder()
    wrapper = layered(model, optimizer=dict(type='SGD', lr=1.0))
    scheduler = WarmupCosineLR(wrapper, total_steps=20, warmup_steps=4)
    scheduler.go_to(11)
    rate = wrapper.optimizer.param_groups[0]['lr']
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    wrapper.optimizer.step()
    factors = layer_factors(model, 0.5)
    for name, p in model.named_parameters():
        torch.testing.assert_close(
            before[name] - p, torch.full_like(p, rate * factors.get(p, 1.0)), rtol=1e-4, atol=1e-6
        )


def test_layer_decay_that_means_nothing(repository):
    frozen = encoder()
    frozen['backbone'].requires_grad_(False)
    with pytest.raises(ValueError, match='has no effect: no parameter of model.backbone trains'):
        layered(frozen)
    with pytest.raises(ValueError, match='a Linear does not tell: networks of timm have a method group_matcher'):
        layered(nn.ModuleDict(dict(backbone=nn.Linear(2, 2))))
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', {'optim_wrapper.layer_decay': 0.75})
    assert cfg.optim_wrapper.layer_decay == 0.75
    for wrong in (1.5, 0, 'much'):
        with pytest.raises((ConfigError, TypeError), match='layer_decay'):
            checked(cfg, {'optim_wrapper.layer_decay': wrong})
