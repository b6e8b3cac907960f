"""ResNets under the names of mmdetection, mmsegmentation and detectron2."""

import pickle

import pytest
import torch
import torchvision
from exported import encoder, features

from mmkernel.registry import MODELS
from mmkernel.zoo import Encoder, ExportError, export_model
from mmkernel.zoo.export_targets import detector_weights
from mmkernel.zoo.name_rules import key_maps


def meta(name, **options):
    options = dict(type='TIMMBackbone', model_name=name, **options)
    pixels = dict(mean=[0.5] * options.get('in_channels', 3), std=[0.25] * options.get('in_channels', 3))
    with torch.device('meta'):
        return Encoder(MODELS.build(dict(options)), options, pixels)


@pytest.mark.parametrize('target', ['mmdet', 'mmseg', 'detectron2'])
@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_every_tensor_has_a_name_there_and_comes_back(target, depth):
    net = meta(f'resnet{depth}')
    state, there = net.backbone.state_dict(), detector_weights(net, target)
    back = key_maps()['detectron2'].apply(there) if target == 'detectron2' else there
    assert len(there) == len(state)
    assert [key.removeprefix('backbone.') for key in back] == list(state)
    assert all(back[key].shape == state[key.removeprefix('backbone.')].shape for key in back)


def test_names_of_detectron2():
    """Those that its BasicStem, BottleneckBlock and make_stage give (detectron2/modeling/backbone/resnet.py)."""
    net = meta('resnet50')
    there = detector_weights(net, 'detectron2')
    table = {
        ours: (name, tuple(there[name].shape)) for ours, name in zip(net.backbone.state_dict(), there, strict=True)
    }
    assert table['conv1.weight'] == ('stem.conv1.weight', (64, 3, 7, 7))
    assert table['bn1.running_mean'] == ('stem.conv1.norm.running_mean', (64,))
    assert table['layer1.0.conv1.weight'] == ('res2.0.conv1.weight', (64, 64, 1, 1))
    assert table['layer1.0.bn3.weight'] == ('res2.0.conv3.norm.weight', (256,))
    assert table['layer2.0.downsample.0.weight'] == ('res3.0.shortcut.weight', (512, 256, 1, 1))
    assert table['layer2.0.downsample.1.bias'] == ('res3.0.shortcut.norm.bias', (512,))
    assert table['layer4.2.bn1.running_var'] == ('res5.2.conv1.norm.running_var', (512,))


def test_names_of_the_mm_frameworks_are_torchvisions_and_the_features_equal(tmp_path):
    net = encoder('resnet18')
    content = torch.load(export_model(net, 'mmdet', tmp_path / 'a' / 'weights.pth').path, weights_only=True)
    assert content['meta']['pixel_mean'] == pytest.approx([123.675, 116.28, 103.53])
    model = torchvision.models.resnet18()
    keys = model.load_state_dict(content['state_dict'], strict=False)
    assert set(keys.missing_keys) == {'fc.weight', 'fc.bias'}
    assert not keys.unexpected_keys
    model.fc = torch.nn.Identity()
    assert torch.equal(*features(net, model.eval()))


def test_file_for_detectron2(tmp_path):
    net = encoder('resnet18')
    net.pixels['std'] = (0.25,) * 3
    content = pickle.loads(export_model(net, 'detectron2', tmp_path / 'weights.pkl').path.read_bytes())
    assert content['matching_heuristics']
    assert content['__author__']
    assert content['pixel_std'] == [63.75] * 3
    back = key_maps()['detectron2'].apply({key: torch.from_numpy(value) for key, value in content['model'].items()})
    assert all(torch.equal(back[f'backbone.{key}'], value) for key, value in net.backbone.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ['weights.pkl']


@pytest.mark.parametrize('name, options, said', [
    ('resnet18d', {}, "has no place for a 'resnet18d'; it takes resnet18, resnet34"),
    ('resnet18', dict(in_channels=1), r'first conv1.weight \(here \(64, 1, 7, 7\), there \(64, 3, 7, 7\)\)'),
    ('vit_tiny_patch16_224', {}, "has no place for a 'vit_tiny"),
])  # fmt: skip
def test_networks_that_have_no_place_there(name, options, said):
    with pytest.raises(ExportError, match=said):
        detector_weights(meta(name, **options), 'detectron2')
