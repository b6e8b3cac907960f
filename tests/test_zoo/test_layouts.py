"""Files of the libraries that people train with, made from small networks with random weights: all features come back equal."""

import argparse
import re

import pytest
import timm
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from mmkernel.zoo import CheckpointError, load_file

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
MORE = torch.randn(4, 4)


def resnet(seed, **options):
    torch.manual_seed(seed)
    small = dict(num_classes=0, layers=(1, 2, 1, 1), channels=(4, 8, 8, 16))
    model = timm.create_model('resnet18', **{**small, **options})
    for part in model.modules():  # statistics of their own, so that a mix-up shows
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.num_batches_tracked.fill_(7)
    return model.eval()


def vit(seed, **options):
    torch.manual_seed(seed)
    small = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0)
    model = timm.models.VisionTransformer(**{**small, **options}).eval()
    with torch.no_grad():
        for part in model.parameters():  # no zeros and ones that look alike
            part.add_(torch.randn_like(part) * 0.1)
    return model


def bottleneck(seed):
    return resnet(seed, block=timm.models.resnet.Bottleneck)


def below(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def renamed(state, *rules):
    for pattern, new in rules:
        state = {re.sub(pattern, new, key): value for key, value in state.items()}
    return state


def heads(*names):
    return {f'{name}.0.weight': MORE for name in names}


NUMBERS = [(f'^{name}\\.', f'{k}.') for name, k in dict(conv1=0, bn1=1, layer1=4, layer2=5, layer3=6, layer4=7).items()]
CIFAR_NUMBERS = [
    (f'^{name}\\.', f'{k}.') for name, k in dict(conv1=0, bn1=1, layer1=3, layer2=4, layer3=5, layer4=6).items()
]


def resnets(net, other):
    """{library or method: content of a file}. ``other``: the weights that must not be taken."""
    head = {'fc.weight': MORE, 'fc.bias': MORE[0]}
    deep = {
        'classy_state_dict': {
            'base_model': {'model': {'trunk': below('_feature_blocks.', net), 'heads': heads('0.clf')}}
        }
    }
    return {
        'torchvision, timm': {**net, **head}, 'a converter': dict(state_dict={**net, **head}),
        'moco': dict(arch='resnet50', state_dict=below('module.encoder_q.', {**net, 'fc.0.weight': MORE})
                     | below('module.encoder_k.', other) | {'module.queue': MORE, 'module.queue_ptr': MORE[0]}),
        'mocov3': dict(state_dict=below('module.base_encoder.', {**net, 'fc.0.weight': MORE, 'fc.1.running_mean': MORE[0]})
                       | below('module.momentum_encoder.', other) | heads('module.predictor')),
        'byol': dict(state_dict=below('online_net.0.', net) | below('target_net.0.', other) | heads('predictor')),
        'byol, numbered': dict(online_network_state_dict=below('encoder.', renamed(net, *NUMBERS)) | heads('projetion.net'),
                               target_network_state_dict=below('encoder.', renamed(other, *NUMBERS))),
        'swav': below('module.', net) | heads('module.projection_head') | {'module.prototypes.weight': MORE},
        'barlow, vicreg': dict(epoch=1, optimizer=dict(state={0: dict(mu=MORE)}), model=below('module.backbone.', net)
                               | heads('module.projector') | {'module.bn.running_var': MORE[0]}),
        'simsiam': dict(state_dict=below('module.encoder.', {**net, 'fc.0.weight': MORE}) | heads('module.predictor')),
        'dino': dict(student=below('module.backbone.', other) | heads('module.head'), args=argparse.Namespace(arch='resnet50'),
                     teacher=below('backbone.', net) | heads('head.mlp'), dino_loss=dict(center=MORE)),
        'lightly': dict(state_dict=below('backbone.', renamed(net, *NUMBERS)) | heads('projection_head.layers')),
        'lightly, momentum': dict(state_dict=below('backbone.', renamed(net, *NUMBERS)) | heads('projection_head.layers')
                                  | below('backbone_momentum.', renamed(other, *NUMBERS)) | heads('projection_head_momentum')),
        'numbered, without pooling': below('f.', renamed(net, *CIFAR_NUMBERS)) | heads('g'),
        'numbered, whole': renamed({**net, **head}, *NUMBERS, ('^fc', '9')),
        'numbered, ddp, compiled': dict(model=below('module._orig_mod.encoder.', renamed(net, *NUMBERS)) | heads('module.head')),
        'solo-learn': dict(state_dict=below('backbone.', net) | below('momentum_backbone.', other) | {'classifier.weight': MORE}
                           | heads('projector', 'momentum_projector', 'predictor'), hyper_parameters=argparse.Namespace(a=1)),
        'vissl': deep, 'vissl, old': dict(model_state_dict=dict(trunk=below('base_model._feature_blocks.', net))),
        'mmselfsup': dict(meta={}, state_dict=below('backbone.', net) | below('target_net.module.0.', other) | heads('neck.fc0')),
        'mmpretrain': dict(state_dict=below('backbone.', net) | heads('neck', 'head') | {'data_preprocessor.mean': MORE}),
        'opensl': dict(state_dict=below('encoder_q.0.', net) | below('encoder_k.0.', other) | {'queue': MORE}),
        'stable-pretraining': dict(state_dict=below('backbone.', net) | heads('projector', 'callbacks_modules.linear_probe')),
        'teacher and student of a wrapper': dict(state_dict=below('backbone.student.', other) | below('backbone.teacher.', net)),
        'ema beside': dict(model=below('module.', net), model_ema=below('module.', other)),
        'ema, lightning': dict(state_dict=below('model.', net), callbacks=dict(EMA=dict(ema_weights=below('model.', other)))),
        'averaged': dict(net=net, averaged_model=below('module.', other)),
        'compiled parts': below('module.', renamed(net, (r'^(layer\d)\.', r'\1._orig_mod.'))),
        'fsdp': below('_fsdp_wrapped_module.', renamed(
            net, (r'^(layer\d\.\d)\.', r'\1._fsdp_wrapped_module._checkpoint_wrapped_module.'))),
        'five dicts': dict(a=dict(b=dict(c=dict(d=dict(e=net))))), 'arrays': {key: value.numpy() for key, value in net.items()},
        'transformers': below('resnet.', renamed(
            net, ('^conv1', 'embedder.embedder.convolution'), ('^bn1', 'embedder.embedder.normalization'),
            (r'^layer(\d)\.', lambda m: f'encoder.stages.{int(m[1]) - 1}.layers.'), (r'downsample\.0', 'shortcut.convolution'),
            (r'downsample\.1', 'shortcut.normalization'), (r'conv(\d)', lambda m: f'layer.{int(m[1]) - 1}.convolution'),
            (r'\.bn(\d)', lambda m: f'.layer.{int(m[1]) - 1}.normalization'))) | {'classifier.1.weight': MORE},
    }  # fmt: skip


RESNETS = list(resnets({}, {}))


@pytest.mark.parametrize('make', [resnet, bottleneck])
@pytest.mark.parametrize('name', RESNETS)
def test_a_resnet(tmp_path, name, make):
    net, other, model = make(0), make(5), make(9)
    torch.save(resnets(net.state_dict(), other.state_dict())[name], tmp_path / 'w.pth')
    report = load_file(model, tmp_path / 'w.pth')
    total = len(net.state_dict())
    assert str(report).startswith(f'{total}/{total} tensors, 0 missing, 0 unexpected')
    assert torch.equal(model(IMAGES), net(IMAGES))
    if found := re.search(r"not used: .* \(prefix='(\S*)' takes it\)", str(report)):
        load_file(model, tmp_path / 'w.pth', prefix=found[1])
        assert torch.equal(model(IMAGES), other(IMAGES))
    two = ('moco', 'byol', 'dino', 'momentum', 'solo', 'mmselfsup', 'opensl', 'teacher', 'ema', 'averaged')
    assert bool(found) == any(word in name for word in two)


def of_transformers(state):
    """Queries, keys and values apart, as transformers has them."""
    found = {}
    for key, value in state.items():
        if '.attn.qkv.' in key:
            parts = zip(('query', 'key', 'value'), value.chunk(3), strict=True)
            found |= {key.replace('attn.qkv', f'attention.attention.{word}'): part for word, part in parts}
        else:
            found[key] = value
    return renamed(
        found, ('^(cls_token)', r'embeddings.\1'), ('^pos_embed', 'embeddings.position_embeddings'), ('^norm', 'layernorm'),
        ('^patch_embed.proj', 'embeddings.patch_embeddings.projection'), (r'^blocks\.', 'encoder.layer.'),
        (r'attn\.proj', 'attention.output.dense'), (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense'),
        (r'\.norm1', '.layernorm_before'), (r'\.norm2', '.layernorm_after'),
    )  # fmt: skip


def of_openmmlab(state, norm='ln'):
    rules = [
        ('patch_embed.proj', 'patch_embed.projection'),
        (r'^blocks\.', 'layers.'),
        (r'\.norm', f'.{norm}'),
        ('^norm', f'{norm}1'),
    ]
    return renamed(state, *rules, (r'mlp\.fc1', 'ffn.layers.0.0'), (r'mlp\.fc2', 'ffn.layers.1'))


def vits(net, other):
    return {
        'timm': {**net, 'head.weight': MORE, 'head.bias': MORE[0]},
        'dino, ibot': dict(student=below('module.backbone.', {**other, 'masked_embed': MORE}) | heads('module.head'), epoch=1,
                           teacher=below('backbone.', {**net, 'masked_embed': MORE}) | heads('head.mlp', 'head.last_layer')),
        'mae': dict(model={**net, 'mask_token': MORE, 'decoder_pos_embed': MORE, **heads('decoder_embed', 'decoder_blocks.0.norm1',
                           'decoder_norm', 'decoder_pred')}, args=argparse.Namespace(mask_ratio=0.75)),
        'mocov3': dict(state_dict=below('module.base_encoder.', net | heads('head')) | heads('module.predictor')
                       | below('module.momentum_encoder.', other | heads('head'))),
        'dinov2': {**net, 'mask_token': MORE},
        'dinov2, chunks': dict(teacher=below('backbone.', renamed({**net, 'mask_token': MORE}, (r'^blocks', 'blocks.0')))
                               | heads('dino_head', 'ibot_head'),
                               student=below('backbone.', renamed(other, (r'^blocks', 'blocks.0')))),
        'lightly': dict(state_dict=below('teacher_backbone.vit.', net) | below('student_backbone.vit.', other)
                        | heads('teacher_head', 'student_head') | {'teacher_backbone.mask_token': MORE}),
        'mmpretrain': dict(meta={}, state_dict=below('backbone.', of_openmmlab(net)) | heads('neck.fc0', 'head')),
        'mmcls': dict(state_dict=below('backbone.', of_openmmlab(net, 'norm'))),
        'openmmlab, momentum': dict(state_dict=below('backbone.', of_openmmlab(net)) | heads('neck')
                                    | below('momentum_encoder.module.0.', of_openmmlab(other))),
        'transformers': of_transformers(net) | {'pooler.dense.weight': MORE},
        'transformers, classifier': below('vit.', of_transformers(net)) | {'classifier.weight': MORE},
        'transformers, mae': below('vit.', of_transformers(net)) | {'decoder.mask_token': MORE, **heads('decoder.decoder_layers')},
        'transformers in lightning': dict(state_dict=below('backbone.vit.', of_transformers(net)) | heads('projector')),
        'compiled blocks': below('_orig_mod.module.', renamed(net, (r'^(blocks\.\d+)', r'\1._orig_mod'))),
    }  # fmt: skip


@pytest.mark.parametrize('name', list(vits({}, {})))
def test_a_transformer(tmp_path, name):
    net, other, model = vit(0), vit(5), vit(9)
    torch.save(vits(net.state_dict(), other.state_dict())[name], tmp_path / 'w.pth')
    report = str(load_file(model, tmp_path / 'w.pth'))
    total = len(net.state_dict())
    assert report.startswith(f'{total}/{total} tensors, 0 missing, 0 unexpected')
    assert torch.equal(model(IMAGES), net(IMAGES))
    assert ('not used' in report) == any(word in name for word in ('dino,', 'chunks', 'moco', 'lightly', 'momentum'))


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.backbone.'])
def test_a_transformer_of_torchvision_below_a_prefix(tmp_path, prefix):
    theirs = VisionTransformer(32, 8, 2, 2, 24, 96, num_classes=5).eval()
    torch.save(dict(state_dict=below(prefix, theirs.state_dict())), tmp_path / 'w.pth')
    theirs.heads = nn.Identity()
    model = vit(1)
    assert "names of the layout 'torchvision_vit'" in str(load_file(model, tmp_path / 'w.pth'))
    torch.testing.assert_close(model(IMAGES), theirs(IMAGES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['dinov2', 'transformers'])
def test_registers_and_layer_scale(tmp_path, name):
    """Their authors' position embedding has an entry for the class token, timm's has none."""
    options = dict(reg_tokens=2, no_embed_class=True, init_values=0.1)
    net, model = vit(0, **options), vit(1, **options)
    state = dict(net.state_dict())
    first = torch.randn(1, 1, 24)
    state |= {'cls_token': state['cls_token'] - first, 'pos_embed': torch.cat([first, state['pos_embed']], 1)}
    state['register_tokens'] = state.pop('reg_token')
    state['mask_token'] = MORE
    if name == 'transformers':
        state = renamed(state, (r'\.ls(\d)\.gamma', r'.layer_scale\1.lambda1'), ('^(register|mask)', r'embeddings.\1'))
        state = of_transformers(state)
    torch.save(state, tmp_path / 'w.pth')
    assert 'the position of the class token was added to it' in str(load_file(model, tmp_path / 'w.pth'))
    torch.testing.assert_close(model(IMAGES), net(IMAGES), rtol=1e-5, atol=1e-5)


def test_two_encoders_below_one_prefix_are_chosen_by_their_whole_place(tmp_path):
    net, other = resnet(0), resnet(5)
    torch.save(
        dict(student=below('backbone.', other.state_dict()), teacher=below('backbone.', net.state_dict())),
        tmp_path / 'w.pth',
    )
    model = resnet(9)
    said = str(load_file(model, tmp_path / 'w.pth'))
    assert (
        "found in 'teacher' -> 'backbone.'; not used: 'student' -> 'backbone.' (prefix='student.backbone.' takes it)"
        in said
    )
    load_file(model, tmp_path / 'w.pth', prefix='student.backbone.')
    assert torch.equal(model(IMAGES), other(IMAGES))
    torch.save(dict(left=net.state_dict(), right=other.state_dict()), tmp_path / 'w.pth')
    with pytest.raises(
        CheckpointError, match=r"2 times: in 'left', 'right'. Choose one: prefix='left.' or prefix='right.'"
    ):
        load_file(model, tmp_path / 'w.pth')
    load_file(model, tmp_path / 'w.pth', prefix='right.')
    assert torch.equal(model(IMAGES), other(IMAGES))
    with pytest.raises(CheckpointError, match=r"below the prefix 'rigth.'. Did you mean 'right.'"):
        load_file(model, tmp_path / 'w.pth', prefix='rigth.')
