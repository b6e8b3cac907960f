"""get_model from a server of the test, and features of whatever a person calls images."""

import hashlib
import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import mmkernel
from mmkernel.models import build_model
from mmkernel.zoo import CheckpointError, DownloadError, HashMismatchError, catalogue, config_of, name_rules, verify
from mmkernel.zoo.metafile import ModelInfo
from mmkernel.zoo.pins import Pins

sys.path.insert(0, str(Path(__file__).parent))
from fault_server import fault_server  # noqa: E402


@pytest.fixture
def zoo(tmp_path, monkeypatch, repository):
    """(trained model, its file's text for the server, function that writes the metafile) of a zoo of one row."""
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path / 'home'))
    monkeypatch.delenv('MMKERNEL_OFFLINE', raising=False)
    (tmp_path / 'configs/tiny').mkdir(parents=True)
    (tmp_path / 'configs/_base_').symlink_to(repository / 'configs/_base_')
    (tmp_path / 'configs/tiny/digits.py').symlink_to(repository / 'configs/kernels/digits_rbf.py')
    for module in (catalogue, name_rules):
        monkeypatch.setattr(module, 'root', lambda: tmp_path)
    info = ModelInfo('tiny', 'Tiny', 'configs/tiny/digits.py')
    torch.manual_seed(3)
    model = build_model(config_of(info))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()

    def write(url, stage='model', layout='mmkernel', **more):
        row = dict(
            Name='tiny_digits', Config='configs/tiny/digits.py', Weights=url, Source='s', License='l', Status='x'
        )
        row['In Collection'] = 'Tiny'
        row['Files'] = [dict(Name='tiny.pth', Stage=stage, URLs=[url], KeyMap=layout, **more)]
        content = dict(Collections=[dict(Name='Tiny')], Models=[row])
        (tmp_path / 'configs/tiny/metafile.yml').write_text(yaml.safe_dump(content))
        catalogue.catalogue.cache_clear()

    with fault_server() as (url, faults):
        yield model, url, faults, write
    catalogue.catalogue.cache_clear()


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_weights_arrive_and_features_equal(zoo, capfd, monkeypatch):
    model, url, faults, write = zoo
    faults.bodies['/a'] = saved(dict(state_dict=model.state_dict(), meta={}))
    write(f'{url}/a', SHA256=hashlib.sha256(faults.bodies['/a']).hexdigest())
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
    encoder = mmkernel.get_model('tiny_digits')
    assert not encoder.training
    expected = model.extract(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    torch.testing.assert_close(mmkernel.get_features(encoder, images, batch_size=4), expected)
    whole = mmkernel.get_model('tiny_digits', stage='model')
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in model.state_dict().items())
    torch.testing.assert_close(mmkernel.get_features(whole, images), expected)
    monkeypatch.setenv('MMKERNEL_OFFLINE', '1')
    mmkernel.get_model('tiny_digits')
    assert len(faults.seen) == 1
    assert 'tensors, 0 missing, 0 unexpected' in capfd.readouterr().err
    (verdict,) = verify(['tiny_digits'])
    assert verdict.fine
    before, content = verdict.path.stat(), bytearray(verdict.path.read_bytes())
    content[-1] ^= 1  # a bit flips on the disk: neither size nor time of change tell
    verdict.path.write_bytes(content)
    os.utime(verdict.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(
        HashMismatchError, match=f'[0-9a-f]{{64}}; {hashlib.sha256(faults.bodies["/a"]).hexdigest()} is published'
    ):
        mmkernel.get_model('tiny_digits')
    monkeypatch.delenv('MMKERNEL_OFFLINE')
    mmkernel.get_model('tiny_digits')  # fetched anew
    (verdict,) = verify(['tiny_digits'])
    assert verdict.why == 'as published (sha256)'
    verdict.path.write_bytes(b'damaged')
    assert verify()[0].fine is False


def test_an_encoder_of_another_layout_and_no_silent_rest(zoo):
    model, url, faults, write = zoo
    state = {f'module.{k}': v for k, v in model.backbone.state_dict().items()}
    faults.bodies['/a'] = saved(state | {'module.prototypes.weight': torch.zeros(2)})
    write(f'{url}/a', 'backbone', 'module_prototypes')
    encoder = mmkernel.get_model('tiny_digits', progress=False)
    assert all(torch.equal(v, encoder.backbone.state_dict()[k]) for k, v in model.backbone.state_dict().items())
    with pytest.raises(ValueError, match="of its backbone only; the rest would stay random. Use stage='backbone'"):
        mmkernel.get_model('tiny_digits', stage='model')
    with pytest.raises(CheckpointError, match=r'images of 1 channels, the model takes 3: .*adapt_input=True adapts'):
        mmkernel.get_model('tiny_digits', cfg_options={'model.backbone.in_channels': 3})
    colour = mmkernel.get_model('tiny_digits', cfg_options={'model.backbone.in_channels': 3}, adapt_input=True)
    grey = torch.randint(0, 256, (2, 1, 16, 16), dtype=torch.uint8)
    torch.testing.assert_close(colour.extract(grey.expand(-1, 3, -1, -1)), encoder.extract(grey))
    faults.bodies['/b'] = saved({key: value for key, value in state.items() if 'layer2' not in key})
    write(f'{url}/b', 'backbone', 'module_prototypes')
    mmkernel.zoo.clean()
    Pins().path.unlink()
    with pytest.raises(CheckpointError, match='missing: layer2'):
        mmkernel.get_model('tiny_digits')


def test_rows_without_what_is_asked(zoo):
    _, url, _, write = zoo
    write(f'{url}/a', 'classifier', None)
    with pytest.raises(ValueError, match=r"No weights of 'tiny_digits' are public. pretrained=False builds it"):
        mmkernel.get_model('tiny_digits')
    assert mmkernel.get_model('tiny_digits', pretrained=False).out_dim == 96
    with pytest.raises(ValueError, match="stage is 'backbone' or 'model', got 'neck'"):
        mmkernel.get_model('tiny_digits', stage='neck')
    with pytest.raises(KeyError, match="Did you mean 'tiny_digits"):
        mmkernel.get_model('tiny_digit')
    with pytest.raises(ValueError, match="stage is 'backbone'"):
        mmkernel.get_model('tiny_digits', pretrained=False).extract(torch.zeros(1, 1, 16, 16), 'neck')


def test_no_network(zoo, monkeypatch):
    _, _, _, write = zoo
    write('https://example.invalid/x.pth', 'backbone')
    monkeypatch.setenv('MMKERNEL_OFFLINE', '1')
    with pytest.raises(
        DownloadError, match=r'Download https://example.invalid/x.pth by hand and put the file at .*tiny.pth'
    ):
        mmkernel.get_model('tiny_digits')


def test_images_are_what_people_call_images(zoo, tmp_path):
    _, url, _, write = zoo
    write(f'{url}/a', 'classifier', None)
    model = mmkernel.get_model('tiny_digits', pretrained=False)
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 1), dtype=np.uint8)
    Image.fromarray(array[..., 0]).save(tmp_path / 'a.png')
    expected = mmkernel.get_features(model, torch.from_numpy(array.transpose(2, 0, 1))[None])
    for images in (array, [array], Image.fromarray(array[..., 0]), str(tmp_path / 'a.png'), [tmp_path / 'a.png']):
        torch.testing.assert_close(mmkernel.get_features(model, images), expected)
    with pytest.raises(ValueError, match='have 3 channels, the encoder takes 1'):
        mmkernel.get_features(model, np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r'is \(N, C, H, W\), got'):
        mmkernel.get_features(model, torch.zeros(3, 16, 16))
    with pytest.raises(ValueError, match='different sizes'):
        mmkernel.get_features(model, [array, array[:8]])
    with pytest.raises(ValueError, match='got ndarray of float64'):
        mmkernel.get_features(model, np.zeros((16, 16, 1)))
    with pytest.raises(ValueError, match='no images'):
        mmkernel.get_features(model, [])
