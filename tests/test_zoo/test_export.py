"""Every export is loaded by its target's own functions and gives the same features."""

import json

import numpy as np
import pytest
import timm
import torch
import torchvision
from exported import encoder, features
from safetensors import safe_open
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from mmkernel.zoo import TARGETS, ExportError, export_model, get_features, load
from mmkernel.zoo.export import TARGETS as TABLE
from mmkernel.zoo.files import read_checkpoint, write_safetensors


@pytest.mark.parametrize('name', ['resnet', 'small', 'vit'])
def test_safetensors_describes_itself(tmp_path, name):
    net = encoder(name)
    found = export_model(net, 'safetensors', tmp_path / 'a.safetensors')
    assert found.difference == 0
    assert 'largest difference of features 0 ' in found.verdict
    back = load(tmp_path / 'a.safetensors')
    images = net.images(3)
    assert torch.equal(get_features(back, images), net.extract(images))
    view = back.transform(np.zeros((50, 70, net.channels), np.uint8))
    assert view.shape == (32, 32, net.channels)
    with safe_open(tmp_path / 'a.safetensors', 'pt') as file:
        meta = file.metadata()
    assert json.loads(meta['preprocessing'])['interpolation'] == 'bilinear'
    assert (meta['format'], meta['license'], meta['name']) == ('pt', 'Apache-2.0', 'tiny')


def test_the_same_content_gives_the_same_bytes(tmp_path):
    texts = {f'key {i}': 'ü "quoted"\n' for i in range(12)}
    for name in 'abc':
        write_safetensors({'x': torch.ones(3), 'y': torch.zeros(2, 2)}, tmp_path / name, texts)
    assert len({(tmp_path / name).read_bytes() for name in 'abc'}) == 1
    with safe_open(tmp_path / 'a', 'pt') as file:
        assert file.metadata() == texts
        assert torch.equal(file.get_tensor('x'), torch.ones(3))


@pytest.mark.parametrize('name', ['resnet', 'vit', 'registers'])
def test_timm(tmp_path, name):
    net = encoder(name)
    found = export_model(net, 'timm', tmp_path / 'a.safetensors')
    assert found.how.startswith('timm.create_model(model_name=')
    model = eval(found.how, dict(timm=timm))  # the line that is printed is the one that works
    assert torch.equal(*features(net, model.eval()))


@pytest.mark.parametrize('name', ['resnet', 'vit'])
def test_hugging_face_folder(tmp_path, name, monkeypatch):
    monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    net = encoder(name)
    found = export_model(net, 'hf', tmp_path / 'a')
    assert sorted(path.name for path in found.path.iterdir()) == ['README.md', 'config.json', 'model.safetensors']
    model = timm.create_model(f'local-dir:{found.path}', pretrained=True).eval()
    assert torch.equal(*features(net, model))
    data = timm.data.resolve_model_data_config(model)
    assert tuple(data['input_size']) == (3, 32, 32)  # a list up to timm 1.0.29
    assert (tuple(data['mean']), data['interpolation']) == (net.pixels['mean'], 'bilinear')
    assert data['crop_pct'] == pytest.approx(32 / 36)
    config = json.loads((found.path / 'config.json').read_text())
    assert not {'tag', 'origin_url', 'paper_ids'} & set(config['pretrained_cfg'])  # those of timm's own weights
    assert (found.path / 'README.md').read_text().startswith('---\nlicense: apache-2.0\nlibrary_name: timm')


def test_torchvision_resnet(tmp_path):
    net = encoder('resnet18')
    assert export_model(net, 'torchvision', tmp_path / 'a.pth').difference == 0
    model = torchvision.models.resnet18()
    model.fc = nn.Identity()
    model.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
    assert torch.equal(*features(net, model.eval()))


def test_torchvision_transformer(tmp_path):
    net = encoder('vit')
    export_model(net, 'torchvision', tmp_path / 'a.pth')
    model = VisionTransformer(32, 8, 2, 2, 24, 96)
    model.heads = nn.Identity()
    model.load_state_dict(torch.load(tmp_path / 'a.pth', weights_only=True))
    torch.testing.assert_close(*features(net, model.eval()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['small', 'vit'])
def test_graphs_that_need_pytorch_alone(tmp_path, name):
    """The three lines of docs/weights_in_and_out.md: an encoder can be traced and exported as it is, and then takes any B."""
    net = encoder(name)
    torch.jit.trace(net, net.images(2)).save(tmp_path / 'a.pt')
    batch = dict(images={0: torch.export.Dim('batch')})
    torch.export.save(torch.export.export(net, (net.images(2),), dynamic_shapes=batch), tmp_path / 'a.pt2')
    images = net.images(5, seed=3)
    for model in (torch.jit.load(tmp_path / 'a.pt'), torch.export.load(tmp_path / 'a.pt2').module()):
        with torch.no_grad():
            torch.testing.assert_close(model(images), net.extract(images), rtol=1e-5, atol=1e-6)


def test_onnx(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    net = encoder('small')
    export_model(net, 'onnx', tmp_path / 'a.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['a.onnx']
    session = onnxruntime.InferenceSession(str(tmp_path / 'a.onnx'))
    assert session.get_modelmeta().custom_metadata_map['license'] == 'Apache-2.0'
    given, want = features(net, lambda x: torch.from_numpy(session.run(['features'], dict(images=x.numpy()))[0]), True)
    torch.testing.assert_close(given, want, rtol=1e-4, atol=1e-5)


def test_onnx_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr('mmkernel.zoo.export_targets.find_spec', lambda name: None)
    with pytest.raises(ExportError, match='pip install onnx onnxruntime onnxscript'):
        export_model(encoder('small'), 'onnx', tmp_path / 'a.onnx')


@pytest.mark.parametrize('target', ['mmdet', 'mmseg', 'detectron2'])
def test_detectors_are_not_claimed_to_be_run(tmp_path, target):
    path = tmp_path / f'a{TARGETS[target].suffix}'
    found = export_model(encoder('resnet18'), target, path)
    assert found.difference is None
    assert found.verdict.startswith('not loaded in target')
    assert str(path) in found.how


def test_detectors_that_would_get_other_tensors(tmp_path, monkeypatch):
    def mixed_up(path):
        content = read_checkpoint(path)
        content['state_dict']['layer1.0.conv1.weight'] = content['state_dict']['layer1.0.conv2.weight']
        return content

    monkeypatch.setattr('mmkernel.zoo.export_targets.read_checkpoint', mixed_up)
    with pytest.raises(ExportError, match='1 tensors do not come back as they were, first layer1.0.conv1.weight'):
        export_model(encoder('resnet18'), 'mmdet', tmp_path / 'a.pth')
    assert list(tmp_path.iterdir()) == []


def test_what_a_target_has_no_place_for(tmp_path):
    for target in ('timm', 'hf', 'torchvision'):
        with pytest.raises(ExportError, match='no ResNet with the 3x3 stem .* safetensors, onnx'):
            export_model(encoder('small'), target, tmp_path / f'a{TARGETS[target].suffix}')
    with pytest.raises(
        ExportError, match=r"torchvision's ResNet differs in .* layer1.0.bn1.bias \(here \(4,\), there \(64,\)\)"
    ):
        export_model(encoder('resnet'), 'torchvision', tmp_path / 'a.pth')
    with pytest.raises(ExportError, match='mmdet has no place for a .vit_tiny'):
        export_model(encoder('vit'), 'mmdet', tmp_path / 'a.pth')
    with pytest.raises(ExportError, match="there is no target 'tensorrt'; expected one of safetensors, timm"):
        export_model(encoder('vit'), 'tensorrt', tmp_path / 'a.pth')
    with pytest.raises(ExportError, match='timm wants a file that ends in .safetensors'):
        export_model(encoder('vit'), 'timm', tmp_path / 'a.pth')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('target', ['timm', 'safetensors'])
def test_images_of_another_size(tmp_path, target):
    net = encoder('vit')
    net.pixels['size'] = (48, 48)
    with pytest.raises(ExportError, match=r'does not take images of \(3, 48, 48\): .* --size'):
        export_model(net, target, tmp_path / f'a{TARGETS[target].suffix}')
    assert list(tmp_path.iterdir()) == []


def test_other_features_are_never_written(tmp_path, monkeypatch):
    """A target that takes the weights and computes something else."""
    wrong = encoder('resnet', seed=4).backbone

    def gives(features):
        def write(net, path):
            path.write_bytes(b'x')
            return lambda images: features(net, net.data_preprocessor.normalize(images))

        monkeypatch.setitem(TABLE, 'timm', TARGETS['timm']._replace(write=write))

    gives(lambda net, images: wrong(images))
    with pytest.raises(ExportError, match='timm gives other features'):
        export_model(encoder('resnet'), 'timm', tmp_path / 'a.safetensors')
    gives(lambda net, images: net(images) * float('nan'))
    with pytest.raises(ExportError, match='timm gives other features: they differ by nan'):
        export_model(encoder('resnet'), 'timm', tmp_path / 'a.safetensors')
    assert list(tmp_path.iterdir()) == []


def test_the_encoder_stays_as_it_is(tmp_path):
    net = encoder('resnet')
    net.backbone.train().half()
    assert export_model(net, 'timm', tmp_path / 'a.safetensors').difference == 0
    assert net.backbone.training
    assert net.backbone.conv1.weight.dtype == torch.float16


def test_a_published_file_goes_on_to_another_target(tmp_path):
    export_model(encoder('vit'), 'safetensors', tmp_path / 'a.safetensors')
    found = export_model(load(tmp_path / 'a.safetensors'), 'timm', tmp_path / 'b.safetensors')
    assert found.difference == 0
    assert torch.equal(*features(encoder('vit'), eval(found.how, dict(timm=timm)).eval()))
    with pytest.raises(TypeError, match='expected an encoder of get_model'):
        export_model(nn.Linear(2, 2), 'timm', tmp_path / 'c.safetensors')


def test_nothing_is_replaced_unasked(tmp_path):
    path = tmp_path / 'a.safetensors'
    path.write_text('mine')
    with pytest.raises(FileExistsError, match='--force'):
        export_model(encoder('vit'), 'timm', path)
    assert path.read_text() == 'mine'
    export_model(encoder('vit'), 'timm', path, force=True)
    folder = tmp_path / 'home'
    folder.mkdir()
    (folder / 'letter.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='letter.txt, which no export wrote'):
        export_model(encoder('vit'), 'hf', folder, force=True)
    assert (folder / 'letter.txt').exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.safetensors', 'home']
