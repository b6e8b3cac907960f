"""Networks of timm for images of several sizes, with registers, and with timm's weights."""

from unittest import mock

import pytest
import timm
import torch
from torch import nn

from mmkernel.models import TIMMBackbone, build_model
from mmkernel.models.image_sizes import check_sizes, evaluation_size, view_sizes

TINY = dict(patch_size=8, embed_dim=24, num_heads=2, depth=1)
SIZES = [(32, 32), (16, 16)]


def vit(model_name='vit_tiny_patch16_224', seed=0, **options):
    torch.manual_seed(seed)
    return TIMMBackbone(model_name, **{**TINY, 'img_size': 32, **options}).eval()


def multi_crop(backbone, small=16, **more):
    views = dict(large=dict(count=2, size=32), off=None, small=dict(count=2, size=small))
    return dict(
        model=dict(
            type='JointEmbedding', backbone=dict(type='TIMMBackbone', **backbone), batching='size', target_views=(0, 1),
            neck=dict(type='MLPNeck', dims=(8, 8)), head=dict(type='VarianceCovarianceHead'),
        ),
        train_dataloader=dict(dataset=dict(views=views)), **more,
    )  # fmt: skip


def test_sizes_that_a_config_makes():
    cfg = multi_crop({}, evaluation=dict(transform=dict(crop=(24, 40), resize=64)))
    assert (view_sizes(cfg), evaluation_size(cfg)) == (SIZES, (24, 40))
    assert (view_sizes({}), evaluation_size({})) == ([], None)
    assert evaluation_size(dict(evaluation=dict(transform=dict(crop=None, resize=None), test=dict(size=16)))) == (
        16,
        16,
    )


@pytest.mark.parametrize('backbone', [
    dict(model_name='vit_tiny_patch16_224', img_size=32, **TINY),
    dict(model_name='vit_small_patch16_dinov3', img_size=32, **TINY),
    dict(model_name='eva02_tiny_patch14_224', img_size=32, **TINY),
    dict(model_name='vit_small_patch14_reg4_dinov2', img_size=32, **TINY),
    dict(model_name='swin_tiny_patch4_window7_224', img_size=32, window_size=4, embed_dim=12, depths=(1, 1), num_heads=(1, 2)),
    dict(model_name='resnet18', layers=(1, 1, 1, 1), channels=(4, 8, 8, 16)),
], ids=lambda backbone: backbone['model_name'])  # fmt: skip
def test_small_crops_beside_large_ones(backbone):
    cfg = multi_crop(backbone)
    model = build_model(cfg)
    check_sizes(model.backbone, view_sizes(cfg))
    views = [torch.rand(4, 3, size, size) for size in (32, 32, 16, 16)]
    losses = model(views, torch.arange(4))
    sum(value for name, value in losses.items() if name.startswith('loss_')).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert 'image_sizes' not in cfg['model']['backbone']


def test_a_network_for_any_size_is_the_same_at_its_own():
    """Same weights from the same seed, and the same bits."""
    fixed, flexible = vit(), vit(image_sizes=SIZES)
    assert (fixed.dynamic_img_size, flexible.dynamic_img_size) == (False, True)
    assert not vit(image_sizes=[(32, 32), (32, 32)]).dynamic_img_size
    assert not vit(image_sizes=SIZES, dynamic_img_size=False).dynamic_img_size
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(fixed(images), flexible(images))


def test_positions_of_small_crops_are_those_of_a_smaller_network():
    flexible, small = vit(image_sizes=SIZES), vit()
    small.set_input_size((16, 16))
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(flexible(images), small(images))


@pytest.mark.parametrize('name, options, words', [
    ('vit_tiny_patch16_224', {}, r'20 x 20 px: take a multiple of the patch \(16 or 24\), or dynamic_img_pad=True'),
    ('vit_tiny_patch16_224', dict(dynamic_img_size=False), '20 x 20 px: dynamic_img_size=True of the backbone takes'),
    ('beit_base_patch16_224', {}, '20 x 20 px: this network takes images of one size alone'),
])  # fmt: skip
def test_a_size_that_cannot_work_is_named_before_any_work(name, options, words):
    backbone = vit(name, image_sizes=[(32, 32), (20, 20)], **options)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        check_sizes(backbone, [(32, 32), (20, 20)])
    assert all(torch.equal(value, before[key]) for key, value in backbone.state_dict().items())
    check_sizes(backbone, [(32, 32)])
    check_sizes(nn.Linear(1, 1), [(20, 20)])  # of no library


def test_padding_on_demand():
    backbone = vit(image_sizes=[(32, 32), (20, 20)], dynamic_img_pad=True)
    check_sizes(backbone, [(20, 20)])
    images = torch.rand(2, 3, 20, 20)
    padded = nn.functional.pad(images, (0, 4, 0, 4))
    torch.testing.assert_close(backbone(images), backbone(padded))


def test_features_of_another_size_name_the_option():
    model = build_model(multi_crop(dict(model_name='vit_tiny_patch16_224', img_size=32, **TINY), small=32))
    with pytest.raises(ValueError, match=r'The images have 16 x 16 px: dynamic_img_size=True'):
        model.extract(torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize('name, options, pooled', [
    ('vit_small_patch14_reg4_dinov2', {}, lambda tokens: tokens[:, 0]),
    ('vit_tiny_patch16_224', dict(reg_tokens=3), lambda tokens: tokens[:, 0]),
    ('vit_tiny_patch16_224', dict(reg_tokens=3, global_pool='avg', fc_norm=False), lambda tokens: tokens[:, 4:].mean(1)),
    ('vit_small_patch16_dinov3', {}, lambda tokens: tokens[:, 5:].mean(1)),
])  # fmt: skip
def test_registers_are_no_part_of_the_features(name, options, pooled):
    backbone = vit(name, image_sizes=SIZES, **options)
    for size in (32, 16):
        images = torch.rand(2, 3, size, size)
        tokens = backbone.forward_features(images)
        assert tokens.shape[1] == backbone.num_prefix_tokens + (size // 8) ** 2
        expected = getattr(backbone, 'fc_norm', nn.Identity())(pooled(tokens))
        torch.testing.assert_close(backbone(images), expected)
    assert backbone.out_dim == 24


def test_positions_that_are_fixed_leave_registers_alone():
    backbone = vit(reg_tokens=3, fixed_positions=True)
    assert backbone.pos_embed[0, :4].abs().max() == 0
    assert backbone.pos_embed[0, 4:].abs().min(1).values.shape == (16,)


def test_weights_of_timm_for_another_size_are_said_to_be_resampled(tmp_path):
    theirs = timm.create_model('vit_tiny_patch16_224', num_classes=0, **{**TINY, 'patch_size': 56})
    torch.save(theirs.state_dict(), tmp_path / 'weights.pth')
    with mock.patch('mmkernel.models.backbones.print_log') as log:
        ours = vit(
            patch_size=56,
            img_size=336,
            pretrained=True,
            pretrained_cfg_overlay=dict(file=str(tmp_path / 'weights.pth')),
        )
    theirs.set_input_size((336, 336))
    assert torch.equal(ours.pos_embed, theirs.pos_embed)
    (said,) = log.call_args.args
    assert said == 'vit_tiny_patch16_224: positions of weights for 224 x 224 px, resampled for 336 x 336 px.'
