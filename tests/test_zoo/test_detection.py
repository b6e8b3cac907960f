import pickle

import pytest
import timm
import torch
import torchvision

from mmkernel.zoo import FRAMEWORKS, export_detection, from_framework, key_table, resnet_depth, to_framework


def encoder(name='resnet18', seed=0, **options):
    torch.manual_seed(seed)
    model = timm.create_model(name, num_classes=0, **options)
    for module in model.modules():  # statistics of their own, so that a mix-up shows
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.2, 1)
    return model.eval()


def meta(name):
    with torch.device('meta'):
        return timm.create_model(name, num_classes=0).state_dict()


@pytest.mark.parametrize('depth', [18, 34, 50, 101, 152])
def test_depth(depth):
    assert resnet_depth(meta(f'resnet{depth}')) == depth


@pytest.mark.parametrize('framework', FRAMEWORKS)
@pytest.mark.parametrize('name', ['resnet18', 'resnet50'])
def test_round_trip(framework, name):
    state = meta(name)
    there = to_framework(state, framework)
    assert len(there) == len(state)
    back = from_framework(there, framework)
    assert list(back) == list(state)
    assert all(back[key] is state[key] for key in state)
    assert list(to_framework({f'backbone.{k}': v for k, v in state.items()} | {'neck.0.weight': 0}, framework)) == list(
        there
    )


def test_names_of_detectron2():
    """Those that its BasicStem, BottleneckBlock and make_stage give (detectron2/modeling/backbone/resnet.py)."""
    table = {ours: (theirs, shape) for ours, theirs, shape in key_table(meta('resnet50'), 'detectron2')}
    assert table['conv1.weight'] == ('stem.conv1.weight', (64, 3, 7, 7))
    assert table['bn1.running_mean'] == ('stem.conv1.norm.running_mean', (64,))
    assert table['layer1.0.conv1.weight'] == ('res2.0.conv1.weight', (64, 64, 1, 1))
    assert table['layer1.0.bn3.weight'] == ('res2.0.conv3.norm.weight', (256,))
    assert table['layer2.0.downsample.0.weight'] == ('res3.0.shortcut.weight', (512, 256, 1, 1))
    assert table['layer2.0.downsample.1.bias'] == ('res3.0.shortcut.norm.bias', (512,))
    assert table['layer4.2.bn1.running_var'] == ('res5.2.conv1.norm.running_var', (512,))
    assert len({theirs for theirs, _ in table.values()}) == len(table)


def test_names_of_the_mm_frameworks_are_torchvisions_and_the_features_equal(tmp_path):
    model = encoder()
    path = export_detection(model.state_dict(), tmp_path / 'a' / 'weights.pth', 'mmdetection')
    content = torch.load(path, weights_only=True)
    assert content['meta']['pixel_mean'] == pytest.approx([123.675, 116.28, 103.53])
    reference = torchvision.models.resnet18()
    keys = reference.load_state_dict(content['state_dict'], strict=False)
    assert set(keys.missing_keys) == {'fc.weight', 'fc.bias'}
    assert not keys.unexpected_keys
    reference.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reference.eval()(images), model(images))


def test_file_for_detectron2(tmp_path):
    model = encoder()
    path = export_detection(model.state_dict(), tmp_path / 'weights.pkl', 'detectron2', (0.5,) * 3, (0.25,) * 3)
    content = pickle.loads(path.read_bytes())
    assert content['matching_heuristics']
    assert content['__author__']
    assert content['pixel_std'] == [63.75] * 3
    back = from_framework({key: torch.from_numpy(value) for key, value in content['model'].items()}, 'detectron2')
    assert all(torch.equal(back[key], value) for key, value in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ['weights.pkl']


@pytest.mark.parametrize('name, options, said', [
    ('resnet18d', {}, 'nearest is ResNet-18'),
    ('resnet18', dict(in_chans=1), r'conv1.weight \(given \(64, 1, 7, 7\), expected \(64, 3, 7, 7\)\)'),
    ('vit_tiny_patch16_224', {}, 'are no ResNet'),
])  # fmt: skip
def test_networks_that_have_no_place_there(name, options, said):
    with torch.device('meta'):
        state = timm.create_model(name, num_classes=0, **options).state_dict()
    with pytest.raises(ValueError, match=said):
        to_framework(state, 'detectron2')


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match='expected one of mmdetection'):
        to_framework(meta('resnet18'), 'yolo')
    with pytest.raises(ValueError, match=r'ends in \.pkl'):
        export_detection(encoder().state_dict(), tmp_path / 'a.pth', 'detectron2')
