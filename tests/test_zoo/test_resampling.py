"""Weights of a transformer for images or patches of another size."""

import pytest
import timm
import torch

from mmkernel.engine import load_config, train
from mmkernel.engine.checkpoint import go_on_from, load_checkpoint, start_from
from mmkernel.models import TIMMBackbone, build_model
from mmkernel.zoo import load_file
from mmkernel.zoo.loading import load_weights
from mmkernel.zoo.pins import CheckpointError

TINY = dict(patch_size=8, embed_dim=24, num_heads=2, depth=1)


def vit(img_size, seed=0, model_name='vit_tiny_patch16_224', **options):
    torch.manual_seed(seed)
    return TIMMBackbone(model_name, img_size=img_size, **{**TINY, **options}).eval()


@pytest.mark.parametrize('name, kept', [
    ('vit_tiny_patch16_224', 1), ('deit_tiny_distilled_patch16_224', 2), ('vit_small_patch14_reg4_dinov2', 0),
    ('vit_small_patch16_18x2_224', 1),
])  # fmt: skip
@pytest.mark.parametrize('size', [48, (16, 40)])
def test_positions_are_resampled_as_timm_does_and_other_tokens_are_left_alone(name, kept, size):
    options = dict(model_name=name, depth=1)
    small, large, expected = vit(32, **options), vit(size, 1, **options), vit(32, **options)
    report = load_weights(large, small.state_dict())
    expected.set_input_size(size if isinstance(size, tuple) else (size, size))
    assert f'pos_embed resampled from 4 x 4 to {"2 x 5" if isinstance(size, tuple) else "6 x 6"}' in str(report)
    assert report.exact
    for key, value in expected.state_dict().items():
        assert torch.equal(large.state_dict()[key], value), key
    assert torch.equal(large.pos_embed[:, :kept], small.pos_embed[:, :kept])


def test_images_that_are_not_square_keep_their_aspect():
    small, large = vit((16, 32)), vit((32, 64), 1)
    assert 'pos_embed resampled from 2 x 4 to 4 x 8' in str(load_weights(large, small.state_dict()))
    small.set_input_size((32, 64))
    assert torch.equal(large.pos_embed, small.pos_embed)


def test_patches_of_another_size():
    small, large = vit(32), vit(64, 1, patch_size=16)
    report = str(load_weights(large, small.state_dict()))
    assert report.endswith('unexpected; patch_embed.proj.weight resampled from 24 x 3 x 8 x 8 to 24 x 3 x 16 x 16')
    flat = torch.linspace(-1, 1, 3)[:, None, None]  # an image of one colour looks alike at both sizes
    images = [flat.expand(1, 3, size, size) for size in (32, 64)]
    torch.testing.assert_close(large(images[1]), small(images[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('name, options', [
    ('beit_base_patch16_224', TINY), ('vit_small_patch16_dinov3', TINY), ('cait_xxs24_224', dict(TINY, num_heads=4)),
])  # fmt: skip
def test_families_with_other_positions(name, options):
    """Tables of relative positions, rotations, which have no weights, and positions of patches alone."""
    models = [timm.create_model(name, img_size=size, num_classes=0, **options).eval() for size in (32, 48)]
    assert load_weights(models[1], models[0].state_dict()).exact
    assert models[1](torch.rand(2, 3, 48, 48)).isfinite().all()


def test_a_window_of_another_size():
    names = [dict(img_size=64, window_size=4), dict(img_size=48, window_size=3)]
    models = [timm.create_model('swin_tiny_patch4_window7_224', embed_dim=12, depths=(1, 1), num_heads=(1, 2), **options)
              for options in names]  # fmt: skip
    report = str(load_weights(models[1], models[0].state_dict()))
    assert 'layers.0.blocks.0.attn.relative_position_bias_table resampled from 49 x 1 to 25 x 1' in report


def test_a_network_that_timm_has_no_rule_for_is_named():
    models = [timm.create_model('levit_128s', img_size=size, num_classes=0) for size in (64, 128)]
    with pytest.raises(CheckpointError, match='mismatched: .*attention_biases.*timm has no rule for this network'):
        load_weights(models[1], models[0].state_dict())


def test_a_layer_of_another_width_is_another_architecture():
    with pytest.raises(
        CheckpointError, match=r'another architecture: .*pos_embed \(file \(1, 17, 24\), model \(1, 37, 12'
    ):
        load_weights(vit(48, embed_dim=12), vit(32).state_dict())


def pretraining(img_size, in_channels=3, target='MomentumTarget'):
    torch.manual_seed(img_size)
    backbone = dict(
        type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=img_size, in_channels=in_channels, **TINY
    )
    model = build_model(dict(model=dict(
        type='JointEmbedding', backbone=backbone, neck=dict(type='MLPNeck', dims=(8, 8)), target=dict(type=target),
        head=dict(type='CosinePredictionHead'),
    )))  # fmt: skip
    model.init_weights()
    return model


def test_a_whole_model_and_its_momentum_copy(tmp_path):
    small, large = pretraining(32), pretraining(48)
    with torch.no_grad():
        small.target.backbone.pos_embed.add_(1)
    torch.save(dict(state_dict=small.state_dict()), tmp_path / 'w.pth')
    report = str(load_checkpoint(large, tmp_path / 'w.pth'))
    assert 'backbone.pos_embed resampled' in report
    assert 'target.backbone.pos_embed resampled' in report
    difference = large.target.backbone.pos_embed - large.backbone.pos_embed
    torch.testing.assert_close(difference, torch.ones_like(difference))


def test_a_momentum_copy_begins_with_the_resampled_positions(tmp_path):
    online = {key: value for key, value in pretraining(32).state_dict().items() if not key.startswith('target.')}
    model = pretraining(48)
    load_weights(model, online)
    assert torch.equal(model.target.backbone.pos_embed, model.backbone.pos_embed)


def test_a_run_begins_with_an_encoder_of_timm(tmp_path):
    """Another size of images, other channels, a classifier too many, and no neck: a line of the config."""
    theirs = timm.create_model('vit_tiny_patch16_224', img_size=32, num_classes=5, **TINY)
    torch.save(theirs.state_dict(), tmp_path / 'vit.pth')
    model = pretraining(48, in_channels=1)
    neck = {key: value.clone() for key, value in model.neck.state_dict().items()}
    said = start_from(model, torch.load(tmp_path / 'vit.pth', weights_only=True), str(tmp_path / 'vit.pth'))
    assert said.startswith('its encoder alone, 18/18 tensors, 0 missing, 0 unexpected; ')
    assert 'left aside: head (2)' in said
    assert 'pos_embed resampled from 4 x 4 to 6 x 6' in said
    assert 'patch_embed.proj.weight adapted from 3 to 1 channels' in said
    assert said.endswith('. New: neck')
    expected = vit(32)
    load_file(expected, tmp_path / 'vit.pth')
    expected.set_input_size((48, 48))
    image = torch.rand(2, 1, 48, 48)
    torch.testing.assert_close(
        model.eval().backbone(image), expected(image.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4
    )
    assert torch.equal(model.target.backbone.pos_embed, model.backbone.pos_embed)
    assert all(torch.equal(value, neck[key]) for key, value in model.neck.state_dict().items())


def test_an_encoder_that_lacks_a_layer_is_refused_by_name(tmp_path):
    state = {key: value for key, value in vit(32).state_dict().items() if key != 'blocks.0.mlp.fc1.bias'}
    with pytest.raises(CheckpointError, match='1 missing, 0 unexpected; missing: blocks.0.mlp.fc1.bias'):
        start_from(pretraining(32), state, 'vit.pth')


@pytest.mark.slow
def test_the_line_of_the_config(repository, tmp_path):
    """A run over small crops begins with an encoder for larger, coloured images, and its log says what was done."""
    theirs = timm.create_model(
        'vit_tiny_patch16_224',
        img_size=64,
        patch_size=8,
        embed_dim=48,
        depth=2,
        num_heads=3,
        reg_tokens=2,
        num_classes=0,
    )
    torch.save(theirs.state_dict(), tmp_path / 'vit.pth')
    options = {
        'load_from': str(tmp_path / 'vit.pth'), 'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 16,
        'train_dataloader.num_batch_per_epoch': 2, 'param_scheduler.warmup_epochs': 0, 'default_hooks.knn': None,
    }  # fmt: skip
    cfg = load_config(repository / 'configs/sfrik/digits_vit.py', options)
    cfg.work_dir = str(tmp_path / 'run')
    assert train(cfg).iter == 2
    (log,) = (tmp_path / 'run').glob('*/*.log')
    text = ' '.join(log.read_text().split())  # of paragraphs
    for part in (
        'encoder alone, 31/31',
        'pos_embed resampled from 8 x 8 to 4 x 4',
        'from 3 to 1 channels',
        'New: neck.',
    ):
        assert part in text
    assert 'Layer decay 0.75: rates x 0.422 in the first layer' in text


def test_a_run_that_goes_on_is_not_resampled():
    """The state of the optimizer has the old shape."""
    with pytest.raises(CheckpointError, match='set img_size and patch_size of the backbone to those of the file'):
        go_on_from(pretraining(48), dict(state_dict=pretraining(32).state_dict()), 'epoch_1.pth')
