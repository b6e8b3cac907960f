"""Backbones, necks, norms, preprocessing."""

import copy
import warnings

import pytest
import torch
import torchvision
from launches import kept_for_backward
from mmengine.model import revert_sync_batchnorm
from timm.layers import convert_sync_batchnorm
from torch import nn

from mmkernel.models import MLPNeck, TIMMBackbone, ViewPreprocessor, necks
from mmkernel.registry import MODELS


@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_resnet_keys_and_features_equal_torchvision(name):
    with torch.device('meta'):
        ours = TIMMBackbone(name)
        theirs = getattr(torchvision.models, name)()
    keys = {k for k in theirs.state_dict() if not k.startswith('fc.')}
    assert set(ours.state_dict()) == keys
    assert ours.out_dim == theirs.fc.in_features


def test_torchvision_weights_give_torchvision_features():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18()
    ours = TIMMBackbone('resnet18')
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith('fc.')})
    theirs.fc = nn.Identity()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_zero_init_residual():
    zeroed, plain = TIMMBackbone('resnet18', zero_init_residual=True), TIMMBackbone('resnet18')
    assert zeroed.layer1[0].bn2.weight.abs().sum() == 0
    assert plain.layer1[0].bn2.weight.min() == 1


def test_small_images_keep_their_resolution():
    backbone = TIMMBackbone('resnet18', small_images=True, in_channels=5)
    assert backbone.conv1.weight.shape == (64, 5, 3, 3)
    assert backbone.forward_features(torch.randn(1, 5, 32, 32)).shape[-2:] == (4, 4)


@pytest.mark.parametrize('name, width, millions', [
    ('resnet50', 2, 93.9), ('resnet50', 4, 375.4), ('resnet50', 5, 586.5), ('resnet200', 2, 250.1),
])  # fmt: skip
def test_wide_resnets_have_the_published_sizes(name, width, millions):
    """Published as 94, 375 and 586 M (Caron et al., NeurIPS 2020) and 250 M (Bardes et al., ICLR 2022)."""
    with torch.device('meta'):
        wide, plain = TIMMBackbone(name, width=width), TIMMBackbone(name)
    assert sum(p.numel() for p in wide.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)
    assert list(wide.state_dict()) == list(plain.state_dict())
    assert wide.out_dim == width * 2048


def test_a_wide_resnet_of_basic_blocks():
    wide = TIMMBackbone('resnet18', width=2, small_images=True, in_channels=1)
    assert wide(torch.randn(1, 1, 16, 16)).shape == (1, 1024)
    assert list(wide.state_dict()) == list(TIMMBackbone('resnet18').state_dict())


def test_a_vision_transformer():
    backbone = TIMMBackbone('vit_tiny_patch16_224', img_size=32, patch_size=8, depth=1)
    assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, backbone.out_dim)


def test_fixed_positions_and_patches():
    """Row and column in sines and cosines, nothing for the class token; Glorot's bound; neither is ever trained."""
    backbone = TIMMBackbone(
        'vit_tiny_patch16_224', img_size=(16, 24), patch_size=8, embed_dim=12, num_heads=2, depth=1, weight_init='moco',
        fixed_positions=True, fixed_patches=True,
    )  # fmt: skip
    rows, columns = (torch.arange(2.0).repeat_interleave(3), torch.arange(3.0).repeat(2))
    waves = 10000 ** -(torch.arange(3) / 3)  # d / 4 of them
    angles = [x[:, None] * waves for x in (rows, columns)]
    expected = torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
    assert torch.equal(backbone.pos_embed[0, 0], torch.zeros(12))
    torch.testing.assert_close(backbone.pos_embed[0, 1:], expected)
    weight, bias = backbone.patch_embed.proj.weight, backbone.patch_embed.proj.bias
    bound = (6 / (3 * 8 * 8 + 12)) ** 0.5
    assert 0.98 * bound < weight.abs().max() <= bound
    assert not bias.any()
    backbone(torch.randn(2, 3, 16, 24)).square().sum().backward()
    untouched = {name for name, p in backbone.named_parameters() if p.grad is None}
    assert untouched == {'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias'}


@pytest.mark.parametrize(
    'options, error, message',
    [
        (dict(model_name='resnet18', fixed_positions=True), ValueError, 'fixed_positions is for vision transformers'),
        (dict(model_name='resnet18', fixed_patches=True), ValueError, 'fixed_patches is for vision transformers'),
        (dict(model_name='vit_tiny_patch16_224', fixed_patches=True, pretrained=True), ValueError, 'would overwrite'),
        (dict(model_name='resnet51'), ValueError, "Did you mean 'resnet"),
        (dict(model_name='vit_tiny_patch16_224', small_images=True), ValueError, 'patch_size'),
        (dict(model_name='vit_tiny_patch16_224', zero_init_residual=True), ValueError, 'ResNets'),
        (dict(model_name='vit_tiny_patch16_224', width=2), ValueError, 'width multiplies the channels of a ResNet'),
        (dict(model_name='resnet18', width=0), ValueError, 'got width = 0'),
        (dict(model_name='resnet50d', width=2), ValueError, 'stem is one convolution'),
        (dict(model_name='resnet18', depth_of_field=3), TypeError, 'depth_of_field'),
    ],
)
def test_wrong_backbones(options, error, message):
    with pytest.raises(error, match=message):
        MODELS.build(dict(type='TIMMBackbone', **options))


def test_projector_of_the_paper():
    neck = MLPNeck((6, 6, 10), in_dim=4)
    kinds = [type(layer).__name__ for layer in neck]
    assert kinds == ['Linear', 'BatchNorm1d', 'ReLU', 'Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    assert neck[0].bias is not None
    assert neck[-1].bias is None
    assert neck(torch.randn(3, 4)).shape == (3, 10)


def test_a_norm_with_a_scale_and_no_offset_also_over_processes():
    neck = MLPNeck((6, 5), in_dim=4, last_norm='ScaledBN')
    assert [name for name, _ in neck.named_parameters()][-1] == '4.weight'
    with torch.no_grad():
        neck[4].weight.copy_(torch.arange(5.0))
    z = neck(torch.randn(16, 4))
    torch.testing.assert_close(z.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(0, correction=0), torch.arange(5.0), atol=1e-3, rtol=1e-3)
    z.square().sum().backward()
    synced = convert_sync_batchnorm(neck)[4]
    assert isinstance(synced, nn.SyncBatchNorm)
    assert synced.bias is None
    assert revert_sync_batchnorm(synced).bias is None


def test_norms_of_a_neck():
    neck = MLPNeck((6, 10), in_dim=4, norm='LN', last_norm=dict(type='BN', affine=False), bias=False, last_bias=True)
    assert isinstance(neck[1], nn.LayerNorm)
    assert neck[-1].weight is None
    assert neck[0].bias is None
    assert neck[3].bias is not None
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in MLPNeck((6, 10), in_dim=4, norm=None))


@pytest.mark.parametrize(
    'options, message',
    [(dict(dims=()), 'MLPNeck.dims='), (dict(dims=(4, 0)), 'MLPNeck.dims='), (dict(dims=(4,)), 'in_dim')],
)
def test_wrong_necks(options, message):
    with pytest.raises(ValueError, match=message):
        MLPNeck(**options)


def test_unknown_norm_names_the_nearest():
    with pytest.raises(KeyError, match='is not registered'):
        MLPNeck((4, 4), in_dim=4, norm='BNN')


def test_preprocessor_normalises_uint8_and_leaves_floats():
    preprocessor = ViewPreprocessor(mean=[0.2, 0.4], std=[0.5, 0.25])
    x = torch.randint(0, 256, (3, 2, 4, 4), dtype=torch.uint8)
    expected = (x / 255 - torch.tensor([0.2, 0.4]).view(2, 1, 1)) / torch.tensor([0.5, 0.25]).view(2, 1, 1)
    data = preprocessor(dict(inputs=[x, x], sample_index=torch.arange(3)), True)
    torch.testing.assert_close(data['inputs'][1], expected)
    assert torch.equal(preprocessor.normalize(expected), expected)
    with warnings.catch_warnings(action='error'):
        assert torch.equal(ViewPreprocessor()(dict(inputs=[expected]))['inputs'][0], expected)
    assert list(preprocessor.state_dict()) == []


def test_floats_of_a_batch_are_said_once():
    preprocessor = ViewPreprocessor(mean=[0.2], std=[0.5])
    with pytest.warns(
        UserWarning, match='mean and std of the data_preprocessor are not applied. Let the dataset give uint8'
    ):
        preprocessor(dict(inputs=[torch.rand(1, 1, 2, 2)]))
    with warnings.catch_warnings(action='error'):
        preprocessor(dict(inputs=[torch.rand(1, 1, 2, 2)]))


@pytest.mark.parametrize('kind', [torch.int64, torch.int16, torch.bool])
def test_other_types_of_images(kind):
    with pytest.raises(ValueError, match='expected uint8, or floats that are normalised'):
        ViewPreprocessor().normalize(torch.ones(1, 1, 2, 2, dtype=kind))
    with pytest.raises(ValueError, match=r'shape \(1, 2, 2\); expected \(B, C, H, W\), in a batch a list'):
        ViewPreprocessor()(dict(inputs=torch.ones(1, 1, 2, 2, dtype=torch.uint8)))


def test_preprocessor_channels_last():
    x = ViewPreprocessor(channels_last=True).normalize(torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('channels_last', [False, True])
def test_bytes_in_any_order_become_the_same_floats_in_the_order_of_the_model(channels_last):
    preprocessor = ViewPreprocessor(mean=[0.2, 0.4, 0.1], std=[0.5, 0.25, 0.3], channels_last=channels_last)
    x = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    made = [preprocessor.normalize(x), preprocessor.normalize(x.to(memory_format=torch.channels_last))]
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert all(view.is_contiguous(memory_format=order) for view in made)
    assert torch.equal(*made)
    floats = made[0].transpose(2, 3)
    assert channels_last or preprocessor.normalize(floats).stride() == floats.stride()


class Doubled(nn.Module):
    """Finishes a view in an order of its own: twice the grey levels where that was drawn."""

    def forward(self, inputs, drawn):
        return [
            (view * (1 + numbers[:, :, None, None])).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
            for view, numbers in zip(inputs, drawn, strict=True)
        ]


@pytest.mark.parametrize('channels_last', [False, True])
def test_unfinished_views_are_finished_and_normalised(channels_last):
    preprocessor = ViewPreprocessor(mean=[0.2], std=[0.5], channels_last=channels_last)
    preprocessor.finish = Doubled()
    x = torch.randint(0, 128, (2, 3, 4, 5), dtype=torch.uint8)
    batch = dict(inputs=[x, x], drawn=[torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1)], label=torch.zeros(2))
    data = preprocessor(batch, True)
    assert data.keys() == {'inputs', 'label'}
    assert set(batch) == {'inputs', 'drawn', 'label'}
    finished = torch.stack([x[0], 2 * x[1]])
    assert torch.equal(data['inputs'][0], preprocessor.normalize(finished))
    assert torch.equal(data['inputs'][1], preprocessor.normalize(x))
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert all(view.is_contiguous(memory_format=order) for view in data['inputs'])
    assert not preprocessor.state_dict()
    with pytest.raises(ValueError, match='Images have 3 channels'):
        ViewPreprocessor(mean=[0.2, 0.1], std=[0.5, 0.5])({**batch, 'drawn': None})
    preprocessor.finish = None
    with pytest.raises(
        ValueError, match="it has 'drawn', and data_preprocessor.finish is None. Set it to what dataset.place"
    ):
        preprocessor(batch, True)


@pytest.mark.parametrize('options', [dict(mean=[0.5], std=[0.0]), dict(mean=[0.5, 0.5], std=[1.0])])
def test_wrong_statistics(options):
    with pytest.raises(ValueError, match='one entry per channel|std=0.0; expected'):
        ViewPreprocessor(**options)


def test_wrong_number_of_channels():
    with pytest.raises(ValueError, match='Images have 1 channels'):
        ViewPreprocessor(mean=[0.5] * 3, std=[1.0] * 3).normalize(torch.zeros(2, 1, 4, 4, dtype=torch.uint8))


def test_a_projector_takes_views_together_and_its_norms_one_after_the_other():
    torch.manual_seed(0)
    neck = MLPNeck((6, 5), in_dim=4, last_norm='BN').double()
    apart = copy.deepcopy(neck)
    h = torch.randn(3, 8, 4, dtype=torch.float64)
    z, expected = neck(h), torch.stack([apart(view) for view in h])
    torch.testing.assert_close(z, expected)
    for result in (z, expected):
        result.pow(3).sum().backward()
    for (name, p), other in zip(neck.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(p.grad, other.grad, msg=name)
    for (name, x), other in zip(neck.named_buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(x, other, msg=name)


@pytest.mark.parametrize('norm', ['BN', 'LN', None])
def test_a_projector_in_half_precision_with_any_norm(norm):
    torch.manual_seed(0)
    neck = MLPNeck((6, 5), in_dim=4, norm=norm, last_bias=True)
    h, gradients = torch.randn(2, 8, 4), []
    for embed in (neck, lambda h: torch.stack([neck(view) for view in h])):
        with torch.autocast('cpu', torch.bfloat16):
            z = embed(h)
        (z.float() + 0).square_().sum().backward()
        gradients.append([p.grad for p in neck.parameters()])
        neck.zero_grad()
    torch.testing.assert_close(*gradients, rtol=2e-2, atol=2e-2)
    with torch.autocast('cpu', torch.bfloat16):
        neck[-1](torch.randn(2, 8, 6)).mul_(2).sum().backward()  # what follows may work in place


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('block', [1, 16, 2**20])
def test_a_layer_in_half_precision_equals_pytorchs_and_keeps_no_copy(monkeypatch, bias, block):
    monkeypatch.setattr(necks, '_BLOCK', block)
    torch.manual_seed(0)
    ours = necks.Linear(7, 9, bias=bias)
    theirs = torch.nn.Linear(7, 9, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 7, requires_grad=True)
    gradients = []
    for layer in (ours, theirs):
        with torch.autocast('cpu', torch.bfloat16), kept_for_backward() as sizes:
            y = layer(x)
        assert y.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(y, [x, *layer.parameters()], torch.ones_like(y) / 3))
        if layer is ours:
            assert sorted(sizes) == [2 * x.numel(), 4 * 7 * 9]  # the input, and the weight itself
    for a, b in zip(*gradients, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
