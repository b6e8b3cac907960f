"""Files of every published layout fill a model and give its outputs; files of another model are refused."""

import pickle

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from mmkernel.models import build_model
from mmkernel.zoo import (
    CheckpointError,
    KeyMapError,
    key_maps,
    load_file,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)
from mmkernel.zoo.loading import adapted

SMALL = dict(num_classes=0, layers=(1, 1, 1, 1), channels=(4, 8, 8, 16))
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def encoder(seed, **options):
    torch.manual_seed(seed)
    model = timm.create_model('resnet18', **{**SMALL, **options})
    for part in model.modules():  # statistics of their own, so that a mix-up shows
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            part.num_batches_tracked.fill_(7)
    return model.eval()


def below(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def layouts():
    """name -> content of a file, as the loading code of each repository reads it (configs/_base_/key_maps.yml)."""
    net, other, more = encoder(0).state_dict(), encoder(5).state_dict(), torch.randn(4, 4)
    return {
        'bare_resnet': {**net, 'fc.weight': more, 'fc.bias': more[0]},
        'ddp_backbone_projector': dict(
            epoch=3,
            optimizer={'state': {0: {'mu': more}}},
            model=below('module.backbone.', net)
            | {'module.projector.0.weight': more, 'module.bn.running_var': more[0]},
        ),
        'module_prototypes': below('module.', net)
        | {'module.projection_head.0.weight': more, 'module.prototypes.weight': more},
        'module_encoder_q': dict(
            arch='resnet18',
            state_dict=below('module.encoder_q.', {**net, 'fc.0.weight': more, 'fc.0.bias': more[0]})
            | below('module.encoder_k.', other)
            | {'module.queue': more, 'module.queue_ptr': more[0]},
        ),
        'module_encoder': dict(
            state_dict=below('module.encoder.', {**net, 'fc.0.weight': more}) | {'module.predictor.0.weight': more}
        ),
        'mmselfsup_resnet': dict(
            meta={},
            state_dict=below('backbone.', net)
            | below('target_net.0.', other)
            | {'neck.fc0.weight': more, 'head.predictor.fc0.weight': more},
        ),
        'teacher': dict(
            student=below('module.backbone.', other), teacher=below('backbone.', {**net, 'head.mlp.0.weight': more})
        ),
        'online': dict(model=below('online_backbone.', net) | {'projector.0.weight': more}),
    }


@pytest.mark.parametrize('name', sorted(layouts()))
def test_layouts_are_recognised(tmp_path, name):
    content = layouts()[name]
    torch.save(content, tmp_path / 'w.pth')
    model, want = encoder(9), encoder(0)
    report = load_file(model, tmp_path / 'w.pth')
    assert report.exact
    total = len(want.state_dict())
    assert str(report).startswith(f'{total}/{total} tensors, 0 missing, 0 unexpected')
    assert torch.equal(model(IMAGES), want(IMAGES))
    if name in key_maps():  # the rules of the metafiles agree
        found = key_maps()[name].apply(content)
        assert all(torch.equal(found[f'backbone.{key}'], value) for key, value in want.state_dict().items())


def test_the_report_says_where_it_was_found_and_what_was_not_used(tmp_path):
    torch.save(layouts()['module_encoder_q'], tmp_path / 'w.pth')
    text = str(load_file(encoder(9), tmp_path / 'w.pth'))
    assert "found in 'state_dict' -> 'module.encoder_q.'" in text
    assert "not used: 'state_dict' -> 'module.encoder_k.'" in text
    assert 'left aside: module (' in text
    model = encoder(9)
    load_file(model, tmp_path / 'w.pth', prefix='module.encoder_k.')
    assert torch.equal(model(IMAGES), encoder(5)(IMAGES))
    with pytest.raises(CheckpointError, match="below the prefix 'encoder_x.'"):
        load_file(model, tmp_path / 'w.pth', prefix='encoder_x.')


def test_two_equal_choices_are_an_error(tmp_path):
    torch.save(below('left.', encoder(0).state_dict()) | below('right.', encoder(1).state_dict()), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match="holds the model 2 times: in 'left.', 'right.'"):
        load_file(encoder(9), tmp_path / 'w.pth')


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (lambda s: s.pop('layer3.0.conv2.weight'), '1 missing, 0 unexpected; missing: layer3.0.conv2.weight'),
        (lambda s: s.update({'layer1.1.conv1.weight': torch.ones(4)}), '0 missing, 1 unexpected'),
        (lambda s: s.update({'fc_norm.weight': torch.ones(4)}), '1 unexpected; unexpected: fc_norm.weight'),
        (lambda s: s.update({'bn1.weight': torch.ones(5)}), r'bn1.weight \(file \(5,\), model \(64,\)\)'),
        (lambda s: s['bn1.bias'].fill_(float('nan')), 'not finite in 1 tensors: bn1.bias'),
        (lambda s: s['layer1.0.bn1.running_var'].fill_(float('inf')), 'not finite in 1 tensors: layer1.0.bn1.running_var'),
    ],
)  # fmt: skip
def test_a_layer_that_nothing_fills_is_an_error_and_the_model_is_untouched(tmp_path, change, text):
    state = encoder(0).state_dict()
    change(state)
    torch.save(dict(model=below('module.backbone.', state)), tmp_path / 'w.pth')
    model = encoder(9)
    with pytest.raises(CheckpointError, match=text):
        load_file(model, tmp_path / 'w.pth')
    assert torch.equal(model(IMAGES), encoder(9)(IMAGES))


def test_deeper_wider_and_foreign_networks_are_refused(tmp_path):
    for name, options in dict(deeper=dict(layers=(1, 1, 1, 2)), wider=dict(channels=(8, 8, 8, 16))).items():
        torch.save(encoder(0, **options).state_dict(), tmp_path / f'{name}.pth')
        with pytest.raises(CheckpointError, match='another architecture'):
            load_file(encoder(9), tmp_path / f'{name}.pth')
    torch.save({'a.b': torch.ones(3)}, tmp_path / 'foreign.pth')
    with pytest.raises(
        CheckpointError, match=r'holds no tensor of the model under any prefix. It has a.b, the model has conv1'
    ):
        load_file(encoder(9), tmp_path / 'foreign.pth')
    torch.save(dict(epoch=3), tmp_path / 'empty.pth')
    with pytest.raises(CheckpointError, match='no tensors'):
        load_file(encoder(9), tmp_path / 'empty.pth')


def test_three_channels_into_one(tmp_path):
    torch.save(encoder(0).state_dict(), tmp_path / 'w.pth')
    model, rgb = encoder(9, in_chans=1), encoder(0)
    with pytest.raises(CheckpointError, match=r'made for images of 3 channels, the model takes 1: .* adapt_input=True'):
        load_file(model, tmp_path / 'w.pth')
    report = load_file(model, tmp_path / 'w.pth', adapt_input=True)
    assert 'conv1.weight adapted from 3 to 1 channels' in str(report)
    grey = IMAGES[:, :1]
    torch.testing.assert_close(model(grey), rgb(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_other_numbers_of_channels():
    weight = torch.randn(2, 3, 5, 5)
    for n in (1, 2, 4, 6):
        torch.testing.assert_close(adapted(weight, n), timm.models.adapt_input_conv(n, weight.clone()))
    torch.testing.assert_close(adapted(weight[:, :1], 4).sum(1), weight[:, 0])
    assert adapted(weight, 3) is weight
    with pytest.raises(CheckpointError, match='only those for 1 or 3'):
        adapted(torch.ones(2, 5, 3, 3), 3)


def test_another_stem(tmp_path):
    torch.save(encoder(0).state_dict(), tmp_path / 'w.pth')
    model = encoder(9)
    model.conv1 = nn.Conv2d(3, 4, 3, bias=False)
    with pytest.raises(CheckpointError, match='is 7x7 in the file and 3x3 in the model: small_images=True'):
        load_file(model, tmp_path / 'w.pth')


def test_counters_that_a_framework_does_not_keep(tmp_path):
    state = {key: value for key, value in encoder(0).state_dict().items() if not key.endswith('num_batches_tracked')}
    torch.save(state, tmp_path / 'w.pth')
    model = encoder(9)
    assert 'counters of batches' in str(load_file(model, tmp_path / 'w.pth'))
    assert int(model.bn1.num_batches_tracked) == 1
    assert torch.equal(model(IMAGES), encoder(0)(IMAGES))


def vit(seed):
    torch.manual_seed(seed)
    return timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0
    ).eval()


def test_a_transformer_of_torchvision(tmp_path):
    torch.manual_seed(0)
    theirs = VisionTransformer(32, 8, 2, 2, 24, 96, num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / 'w.pth')
    theirs.heads = nn.Identity()
    for layout in (None, 'torchvision_vit'):
        model = vit(1)
        load_file(model, tmp_path / 'w.pth', layout)
        torch.testing.assert_close(model(IMAGES), theirs(IMAGES), rtol=1e-5, atol=1e-5)
    back = key_maps()['to_torchvision_vit'].apply(model.state_dict())
    assert {key for key in theirs.state_dict()} == set(back)
    with pytest.raises(KeyMapError, match="there is no layout 'nonsense'"):
        load_file(model, tmp_path / 'w.pth', 'nonsense')
    with pytest.raises(KeyMapError, match="not of the layout 'bare_resnet'"):
        load_file(model, tmp_path / 'w.pth', 'bare_resnet')


def test_a_text_among_tensors_of_a_given_layout(tmp_path):
    state = below('backbone.', encoder(0).state_dict())
    torch.save(dict(state_dict=state | {'backbone.conv1.weight': 'x'}), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='1 missing, 0 unexpected; missing: conv1.weight'):
        load_file(encoder(9), tmp_path / 'w.pth', 'mmkernel', 'backbone.')


def test_a_transformer_of_openmmlab(tmp_path):
    names = [('blocks.', 'layers.'), ('.norm', '.ln'), ('norm.', 'ln1.'), ('mlp.fc1', 'ffn.layers.0.0')]
    names += [('mlp.fc2', 'ffn.layers.1'), ('patch_embed.proj', 'patch_embed.projection')]
    state = {}
    for key, value in vit(0).state_dict().items():
        for ours, theirs in names:
            key = key.replace(ours, theirs)
        state[f'backbone.{key}'] = value
    torch.save(dict(meta={}, state_dict={**state, 'neck.fc0.weight': torch.ones(2, 2)}), tmp_path / 'w.pth')
    model = vit(1)
    assert "names of the layout 'mmselfsup_vit'" in str(load_file(model, tmp_path / 'w.pth'))
    assert torch.equal(model(IMAGES), vit(0)(IMAGES))


def test_a_checkpoint_of_ours_fills_an_encoder(tmp_path):
    """The momentum copy is not taken for the encoder."""
    backbone = dict(type='TIMMBackbone', model_name='resnet18', layers=(1, 1, 1, 1), channels=(4, 8, 8, 16))
    cfg = dict(
        model=dict(
            type='JointEmbedding',
            backbone=backbone,
            neck=dict(type='MLPNeck', dims=(8, 8)),
            predictor=dict(type='MLPNeck', dims=(8, 8)),
            target=dict(type='MomentumTarget'),
            head=dict(type='CosinePredictionHead'),
        )
    )
    whole = build_model(cfg)
    whole.init_weights()
    with torch.no_grad():
        whole.backbone.conv1.weight.add_(1)
    write_checkpoint(dict(state_dict=whole.state_dict(), meta={}), tmp_path / 'w.pth')
    model = encoder(9)
    report = load_file(model, tmp_path / 'w.pth')
    assert "found in 'state_dict' -> 'backbone.'" in str(report)
    assert torch.equal(model.conv1.weight, whole.backbone.conv1.weight)


@pytest.mark.parametrize('prefix', ['', 'backbone.', 'module.backbone.'])
def test_a_whole_model_is_not_filled_by_an_encoder(tmp_path, prefix):
    """The projector would stay random, and features after it would be noise."""
    whole = nn.ModuleDict(dict(backbone=encoder(9), neck=nn.Linear(16, 4)))
    torch.save(below(prefix, encoder(0).state_dict()), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=r'would stay random: mmkernel.zoo.load_file\(model.backbone, FILE\)'):
        load_weights(whole, torch.load(tmp_path / 'w.pth', weights_only=True))
    assert load_file(whole['backbone'], tmp_path / 'w.pth').exact
    with pytest.raises(CheckpointError, match='2 missing, 0 unexpected; missing: neck.weight, neck.bias'):
        load_file(whole, tmp_path / 'w.pth')


class Code:
    def __reduce__(self):
        return (print, ('code of the file ran',))


@pytest.mark.parametrize('save', [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_with_code_is_not_run(tmp_path, capsys, save):
    save(dict(state_dict=encoder(0).state_dict(), extra=Code()), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='loading one can run code'):
        load_file(encoder(9), tmp_path / 'w.pth')
    assert 'ran' not in capsys.readouterr().out


class Kind:
    """numpy.dtype with flags that make 8 bytes of the file the address of an object."""

    def __reduce__(self):
        return np.dtype, ('f8', False, True), (3, '<', None, None, None, 8, 8, 127)


class Number:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        return np.float64(0).__reduce__()[0], (self.kind, bytes(8))


@pytest.mark.parametrize('name', ['w.pth', 'w.pkl'])
def test_numbers_of_numpy_are_read_and_their_kinds_cannot_crash_the_process(tmp_path, name):
    save = torch.save if name == 'w.pth' else lambda value, path: path.write_bytes(pickle.dumps(value))
    numbers = [np.float64(0.1), np.float32(2), np.int64(-3), np.bool_(True), np.dtype('>f4').type(5)]
    for i, number in enumerate([*numbers, Number(Kind())]):
        save(dict(model=dict(w=np.ones(2) if name == 'w.pkl' else torch.ones(2)), number=number), tmp_path / name)
        found = read_checkpoint(tmp_path / name)
        assert found['model']['w'].tolist() == [1, 1]
        expected = np.float64(0) if i == len(numbers) else number
        assert name == 'w.pkl' or (found['number'] == expected and type(found['number']) is type(expected))
    save(dict(number=Number(np.dtype('O'))), tmp_path / name)
    with pytest.raises(CheckpointError, match="expected numbers, got '.?O"):
        read_checkpoint(tmp_path / name)


def test_a_page_in_place_of_weights(tmp_path):
    (tmp_path / 'w.pth').write_text('<!DOCTYPE html><html><body>404</body></html>')
    with pytest.raises(CheckpointError):
        load_file(encoder(9), tmp_path / 'w.pth')
