"""mmkernel.load: one door for checkpoints of ours, published files, and files of other libraries that name no architecture."""

import argparse
import re

import pytest
import timm
import torch
import torchvision
from exported import encoder
from torch import nn

import mmkernel
from mmkernel.engine import load_config
from mmkernel.evaluation import untrained_encoder
from mmkernel.zoo import CheckpointError, Encoder, export_model, load_file, write_checkpoint
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.files import write_safetensors

SMALL = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (16, 16)}
IMAGES = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def with_statistics(net):
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net.eval()


def same(found, net):
    images = found.images(1, seed=3) if found.pixels['size'] else IMAGES[:1, : found.channels]
    with torch.no_grad():
        torch.testing.assert_close(
            found.extract(images), net(found.data_preprocessor.normalize(images)), rtol=1e-4, atol=1e-4
        )


@pytest.fixture
def run(tmp_path, repository):
    """(path of a checkpoint of a run, its model)."""
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', SMALL)
    model = untrained_encoder(cfg)
    with_statistics(model).train()
    meta = dict(epoch=20, iter=400, config=config_text(cfg.to_dict()))
    write_checkpoint(dict(meta=meta, state_dict=model.state_dict(), optimizer={}), tmp_path / 'epoch_20.pth')
    return tmp_path / 'epoch_20.pth', model


@pytest.mark.parametrize('door', [mmkernel.load, mmkernel.get_model])
def test_a_checkpoint_of_ours(run, door):
    path, model = run
    images = torch.randint(0, 256, (3, 1, 16, 16)).to(torch.uint8)
    found = door(str(path))
    assert isinstance(found, Encoder)
    assert not found.training
    assert found.info.name == 'epoch_20'
    assert found.facts['epochs'] == 20
    assert torch.equal(found.extract(images), model.extract(images))
    whole = door(path, stage='model')
    assert torch.equal(whole.extract(images, stage='neck'), model.extract(images, stage='neck'))
    assert mmkernel.get_features(whole, list(images.permute(0, 2, 3, 1).numpy())).shape == (3, found.out_dim)


def test_a_published_file_and_a_folder_of_the_hub(tmp_path):
    net = encoder('resnet')
    for target, name in dict(safetensors='a.safetensors', hf='a').items():
        export_model(net, target, tmp_path / name)
        found = mmkernel.get_model(str(tmp_path / name))
        assert torch.equal(found.extract(IMAGES), net.extract(IMAGES))
        assert found.report.taken_for == ''


def test_an_encoder_alone_is_no_pretraining_model(run):
    export_model(mmkernel.load(run[0]), 'safetensors', run[0].with_name('a.safetensors'))
    with pytest.raises(
        CheckpointError, match='fills the model only in part.* holds an encoder and nothing that stands on it'
    ):
        mmkernel.load(run[0].with_name('a.safetensors'), stage='model')
    torch.save(timm.create_model('resnet18').state_dict(), run[0].with_name('b.pth'))
    with pytest.raises(CheckpointError, match="holds no config of a pretraining model: stage='model' takes"):
        mmkernel.load(run[0].with_name('b.pth'), stage='model')


RESNETS = dict(
    torchvision_18=lambda: torchvision.models.resnet18(num_classes=5), torchvision_50=torchvision.models.resnet50,
    grouped=torchvision.models.resnext50_32x4d, timm_26=lambda: timm.create_model('resnet26'),
    grey=lambda: timm.create_model('resnet18', in_chans=1), narrow=lambda: timm.create_model('resnet18', channels=(8, 8, 16, 16)),
)  # fmt: skip


@pytest.mark.parametrize('name', list(RESNETS))
def test_a_resnet_needs_no_config(tmp_path, name):
    torch.manual_seed(0)
    net = with_statistics(RESNETS[name]())
    torch.save(
        dict(epoch=3, state_dict={f'module.{key}': value for key, value in net.state_dict().items()}),
        tmp_path / 'w.pth',
    )
    found = mmkernel.load(tmp_path / 'w.pth')
    net.fc = nn.Identity()
    same(found, net)
    assert found.pixels['size'] == (224, 224)
    assert found.report.taken_for.startswith('taken for resnet')
    assert 'not told by the file: mean and std (of ImageNet)' in str(found.report)


TRANSFORMERS = dict(
    plain={}, smaller=dict(img_size=32, patch_size=8), registers=dict(img_size=64, reg_tokens=4, no_embed_class=True),
    registers_too=dict(img_size=64, reg_tokens=4), scaled=dict(img_size=64, init_values=1e-5), no_token=dict(
        img_size=64, class_token=False, global_pool='avg'), averaged=dict(img_size=64, global_pool='avg'),
    shallow=dict(img_size=64, depth=2, mlp_ratio=2), no_bias=dict(img_size=64, qkv_bias=False, qk_norm=True),
    before=dict(img_size=64, pre_norm=True), grey=dict(img_size=64, in_chans=1), unpooled=dict(img_size=64, class_token=False,
        global_pool='avg', fc_norm=False),
)  # fmt: skip


@pytest.mark.parametrize('name', list(TRANSFORMERS))
def test_a_transformer_needs_no_config(tmp_path, name):
    torch.manual_seed(0)
    options = dict(depth=3) | TRANSFORMERS[name]
    net = timm.create_model('vit_tiny_patch16_224', num_classes=0, **options).eval()
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    found = mmkernel.load(tmp_path / 'w.pth')
    same(found, net)
    size = options.get('img_size', 224)
    assert found.pixels['size'] == (size, size)
    assert '3 heads, as usual at this width' in str(found.report)


def test_a_transformer_of_torchvision_needs_no_config(tmp_path):
    net = torchvision.models.vision_transformer.VisionTransformer(32, 16, 2, 3, 192, 768, num_classes=5).eval()
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    net.heads = nn.Identity()
    same(mmkernel.load(tmp_path / 'w.pth'), net)


def test_a_teacher_is_taken_whatever_its_student_is(tmp_path):
    small, large = (timm.create_model('resnet18', channels=(4, 4, 4, width)).state_dict() for width in (4, 8))
    content = dict(
        student={f'backbone.{key}': value for key, value in small.items()}, args=argparse.Namespace(arch='x')
    )
    content['teacher'] = {f'backbone.{key}': value for key, value in large.items()}
    torch.save(content, tmp_path / 'w.pth')
    assert mmkernel.load(tmp_path / 'w.pth').out_dim == 8
    assert mmkernel.load(tmp_path / 'w.pth', prefix='student.backbone.').out_dim == 4
    torch.save(dict(a=small, b=large), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=r"holds 2 networks: resnet18 .*prefix='a.'.*prefix='b.'"):
        mmkernel.load(tmp_path / 'w.pth')
    assert mmkernel.load(tmp_path / 'w.pth', prefix='b.').out_dim == 8


def test_a_small_stem_is_said(tmp_path):
    net = encoder('small').backbone
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    found = mmkernel.load(tmp_path / 'w.pth', pixels=dict(mean=[0.5], std=[0.25], size=(28, 28)))
    assert 'stride 1 and no pooling in the 3x3 stem' in str(found.report)
    assert found.pixels['size'] == (28, 28)
    assert found.pixels['mean'] == (0.5,)
    same(found, net)


@pytest.mark.parametrize(('make', 'said'), [
    (lambda: timm.create_model('mobilenetv3_small_050').state_dict(), 'conv_stem.weight.* are names of no ResNet and no plain'),
    (lambda: timm.create_model('vit_tiny_patch16_224', embed_dim=24, num_heads=2, depth=1).state_dict(),
     'the number of heads of a transformer of width 24 is not told'),
    (lambda: timm.create_model('deit_tiny_distilled_patch16_224', depth=1).state_dict(), 'or a distilled one'),
    (lambda: timm.create_model('resnet18d').state_dict(), "a ResNet without 'conv1.weight'"),
    (lambda: timm.create_model('seresnet18').state_dict(), 'with squeeze and excitation'),
    (lambda: {k: v for k, v in timm.create_model('resnet18').state_dict().items() if 'layer4.1' not in k and 'bn2' not in k},
     'tensors that the file lacks .layer1.0.bn2.weight'),
    (lambda: {'layer1.0.conv1.weight': torch.ones(2), 'conv1.weight': torch.ones(7)}, 'its shapes are of no network'),
    (lambda: {'a': torch.ones(1)}, 'it has a, which are names'), (lambda: dict(epoch=3), 'it has no tensors'),
])  # fmt: skip
def test_what_cannot_be_told_is_said(tmp_path, make, said):
    torch.save(make(), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=rf'does not say how its encoder is built, and .*{said}.*--arch'):
        mmkernel.load(tmp_path / 'w.pth')


def test_heads_that_are_not_told_are_asked_for(tmp_path):
    """Fixed positions and a width of 384: 6 heads in one library, 12 in another; the wrong one gives noise."""
    options = dict(
        type='TIMMBackbone',
        model_name='vit_small_patch16_224',
        img_size=64,
        depth=1,
        num_heads=12,
        fixed_positions=True,
    )
    net = mmkernel.MODELS.build(dict(options, type='TIMMBackbone')).eval()
    torch.save(dict(state_dict=net.state_dict()), tmp_path / 'w.pth')
    said = r"go with 6 heads or with 12 .*arch=dict\(model_name='vit_small_patch16_224', num_heads=12"
    with pytest.raises(CheckpointError, match=said):
        mmkernel.load(tmp_path / 'w.pth')
    same(mmkernel.load(tmp_path / 'w.pth', arch=options), net)


def test_a_file_cannot_ask_for_more_memory_than_it_has(tmp_path):
    state = timm.create_model('resnet18', channels=(4, 4, 4, 4)).state_dict()
    state['layer4.0.conv2.weight'] = torch.zeros(1 << 20, 1, 1, 1)
    torch.save(state, tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='its shapes are of no network'):
        mmkernel.load(tmp_path / 'w.pth')


def test_names_and_paths_are_told_apart(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    near = r"There is no checkpoint 'epoch_2.pth'. Did you mean 'epoch_20.pth'\? The folder holds: epoch_20"
    with pytest.raises(FileNotFoundError, match=near):
        mmkernel.get_model('epoch_2.pth')
    with pytest.raises(FileNotFoundError, match="There is no folder 'no_such'"):
        mmkernel.load('no_such/epoch_2.pth')
    with pytest.raises(FileNotFoundError, match=r"a name of the zoo: mmkernel.get_model\('sfrik_digits_L3'\)"):
        mmkernel.load('sfrik_digits_L3')
    with pytest.raises(KeyError, match="Did you mean 'sfrik_digits_L3'"):
        mmkernel.get_model('sfrik_digit_L3')
    with pytest.raises(ValueError, match='cfg_options and pretrained=False go with a name'):
        mmkernel.get_model('epoch_20.pth', pretrained=False)


def test_a_folder_of_transformers(tmp_path):
    """Its config.json names no architecture of timm; the tensors tell."""
    net = with_statistics(timm.create_model('resnet18', channels=(4, 4, 8, 8)))
    state = net.state_dict()
    for pattern, new in ((r'^conv1', 'embedder.embedder.convolution'), (r'^bn1', 'embedder.embedder.normalization'),
                         (r'^layer(\d)\.', lambda m: f'encoder.stages.{int(m[1]) - 1}.layers.'),
                         (r'downsample\.0', 'shortcut.convolution'), (r'downsample\.1', 'shortcut.normalization'),
                         (r'conv(\d)', lambda m: f'layer.{int(m[1]) - 1}.convolution'),
                         (r'\.bn(\d)', lambda m: f'.layer.{int(m[1]) - 1}.normalization')):  # fmt: skip
        state = {re.sub(pattern, new, key): value for key, value in state.items() if not key.startswith('fc')}
    write_safetensors(
        {f'resnet.{key}': value for key, value in state.items()}, tmp_path / 'model.safetensors', dict(format='pt')
    )
    (tmp_path / 'config.json').write_text('{"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}')
    found = mmkernel.load(tmp_path)
    net.fc = nn.Identity()
    same(found, net)
    assert "names of the layout 'hf_resnet'" in str(found.report)


def test_a_config_and_an_architecture_are_told_apart(run):
    with pytest.raises(TypeError, match="got 'resnet18'. Did you mean arch='resnet18'"):
        mmkernel.load(run[0], 'resnet18')
    with pytest.raises(TypeError, match=r"Did you mean cfg=mmkernel.engine.load_config\('a.py'\)"):
        mmkernel.load(run[0], 'a.py')


def test_parameters_without_statistics_are_named(tmp_path):
    net = timm.create_model('resnet18', channels=(4, 4, 4, 4), num_classes=0)
    torch.save(dict(net.named_parameters()), tmp_path / 'w.pth')
    said = r'fills the model only in part.*lacks the statistics of batch norm: save model.state_dict'
    with pytest.raises(CheckpointError, match=said):
        load_file(net, tmp_path / 'w.pth')


TINY = 'a tiny vision transformer of 2 layers, 4 x 4 patches of 16 pixels'


def tiny(**options):
    return timm.create_model('vit_tiny_patch16_224', **{**dict(depth=2, img_size=64, num_classes=0), **options})


@pytest.mark.parametrize(('theirs', 'ours', 'said'), [
    (dict(reg_tokens=4), {}, f'The file holds {TINY}, reg_tokens=4, the model is {TINY}.'),
    ({}, dict(reg_tokens=4), f'The file holds {TINY}, the model is {TINY}, reg_tokens=4.'),
    (dict(global_pool='avg'), {}, f'The file holds {TINY}, global_pool=avg, the model is {TINY}.'),
    (dict(class_token=False, global_pool='avg'), {}, 'class_token=False, fc_norm=True, the model is'),
    (dict(init_values=1e-5), {}, 'init_values=1e-05, the model is'),
    (dict(depth=4), {}, f'of 4 layers, 4 x 4 patches of 16 pixels, the model is {TINY}.'),
    (dict(embed_dim=384, num_heads=6), {}, f'The file holds a small vision transformer of 2 layers.*, the model is {TINY}.'),
    (dict(img_size=(32, 96)), {}, r'The grid of patches differs, .*the grid of the file is no square'),
])  # fmt: skip
def test_an_error_says_how_the_networks_differ_and_nothing_else(tmp_path, theirs, ours, said):
    torch.save(tiny(**theirs).state_dict(), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=said) as stop:
        load_file(tiny(**ours), tmp_path / 'w.pth')
    assert ('grid' in str(stop.value)) == ('grid' in said)


def test_networks_without_a_common_name_are_told_apart(tmp_path):
    nets = [tiny(), timm.create_model('resnet18', num_classes=0), timm.create_model('resnet50', num_classes=0)]
    words = [TINY, 'resnet18', 'resnet50']
    for i, k in ((0, 1), (1, 0), (1, 2), (2, 1)):
        torch.save(dict(model=nets[i].state_dict()), tmp_path / 'w.pth')
        with pytest.raises(CheckpointError, match=f'The file holds {words[i]}, the model is {words[k]}.$'):
            load_file(nets[k], tmp_path / 'w.pth')
