"""Weights of other libraries come in whole, and go out again as they came."""

import io
import pickle

import pytest
import timm
import torch
import torchvision
from exported import BACKBONES, config, encoder
from torch import nn

from mmkernel.zoo import CheckpointError, export_model, get_features, load
from mmkernel.zoo.opening import layouts


def equal(found, net):
    images = net.images(3, seed=2)
    assert torch.equal(found.extract(images), net.extract(images))


@pytest.mark.parametrize('layout', ['torchvision', 'auto', 'bare_resnet'])
def test_torchvision(tmp_path, layout):
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / 'resnet18.pth')
    found = load(tmp_path / 'resnet18.pth', layout=layout, arch='resnet18', license='BSD-3-Clause')
    assert str(found.report).startswith('120/120 tensors, 0 missing, 0 unexpected')
    theirs.fc = nn.Identity()
    images = torch.randint(0, 256, (2, 3, 64, 64)).to(torch.uint8)
    with torch.no_grad():
        want = theirs.eval()(found.data_preprocessor.normalize(images))
    assert torch.equal(found.extract(images), want)
    assert found.pixels['size'] == (224, 224)
    export_model(found, 'safetensors', tmp_path / 'ours.safetensors')
    assert torch.equal(get_features(load(tmp_path / 'ours.safetensors'), images), want)


@pytest.mark.parametrize('target', ['timm', 'hf', 'torchvision'])
def test_there_and_back(tmp_path, target):
    net = encoder('vit')
    path = tmp_path / ('a' + dict(timm='.safetensors', hf='', torchvision='.pth')[target])
    export_model(net, target, path)
    cfg = None if target == 'hf' else config('vit')
    found = load(path, cfg, layout='auto' if target == 'timm' else target)
    equal(found, net)
    assert found.pixels['mean'] == pytest.approx(net.pixels['mean'])
    assert (found.pixels['crop'], found.pixels['resize']) == (32, 36)


@pytest.mark.parametrize(('target', 'suffix'), [('mmdet', '.pth'), ('mmseg', '.pth'), ('detectron2', '.pkl')])
def test_detectors_there_and_back(tmp_path, target, suffix):
    net = encoder('resnet18')
    path = tmp_path / f'a{suffix}'
    export_model(net, target, path)
    for layout in (target, 'auto'):
        found = load(path, config('resnet18'), layout=layout)
        assert str(found.report).startswith('120/120 tensors')
        equal(found, net)


def test_a_detector_trained_by_detectron2(tmp_path):
    """Its names below backbone.bottom_up., its other parts, and no counters of batches."""
    net = encoder('resnet18')
    export_model(net, 'detectron2', tmp_path / 'a.pkl')
    state = pickle.loads((tmp_path / 'a.pkl').read_bytes())['model']  # our own file
    state = {f'backbone.bottom_up.{key}': torch.from_numpy(value) for key, value in state.items() if 'num_' not in key}
    torch.save(dict(model={**state, 'proposal_generator.rpn_head.conv.weight': torch.ones(2)}), tmp_path / 'b.pth')
    found = load(tmp_path / 'b.pth', config('resnet18'), layout='detectron2')
    assert '20 counters of batches are not in the file' in str(found.report)
    equal(found, net)


class Code:
    def __reduce__(self):
        return (print, ('code of the file ran',))


def test_a_pickle_with_code_is_not_run(tmp_path, capsys):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(dict(model=dict(a=Code()))))
    with pytest.raises(CheckpointError, match=r'builtins.print.*can run code'):
        load(tmp_path / 'a.pkl', layout='detectron2', arch='resnet18')
    (tmp_path / 'b.pkl').write_bytes(b'<html>404</html>')
    with pytest.raises(CheckpointError, match='not a pickle of arrays, or is damaged'):
        load(tmp_path / 'b.pkl', layout='detectron2', arch='resnet18')
    assert 'ran' not in capsys.readouterr().out


def test_channels(tmp_path):
    options = {key: value for key, value in BACKBONES['resnet'].items() if key not in ('type', 'model_name')}
    torch.save(timm.create_model('resnet18', num_classes=3, **options).state_dict(), tmp_path / 'a.pth')
    cfg = config('resnet')
    cfg['model']['backbone']['in_channels'] = 1
    with pytest.raises(CheckpointError, match='adapt_input=True'):
        load(tmp_path / 'a.pth', cfg, layout='timm')
    found = load(tmp_path / 'a.pth', cfg, layout='timm', adapt_input=True)
    assert 'left aside: fc (2)' in str(found.report)


def test_what_is_not_said(tmp_path):
    torch.save(dict(a=torch.ones(1)), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='--arch resnet50'):
        load(tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="layout is one of 'auto', 'timm'"):
        load(tmp_path / 'a.pth', layout='keras')
    with pytest.raises(FileNotFoundError, match='config.json and model.safetensors are needed'):
        load(tmp_path, layout='hf')
    assert 'to_torchvision_vit' not in layouts()
    buffer = io.BytesIO()
    torch.save(timm.create_model('mobilenetv3_small_050').state_dict(), buffer)
    (tmp_path / 'b.pth').write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match=r'does not say how its encoder is built, and .*--config'):
        load(tmp_path / 'b.pth')
