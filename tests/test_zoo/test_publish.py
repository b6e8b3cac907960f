"""A published file holds weights and facts only, says its own hash, and gives the features of the checkpoint."""

import hashlib
import json

import pytest
import torch
import yaml
from exported import config, encoder
from safetensors import safe_open

from mmkernel.evaluation import UntrainedError
from mmkernel.zoo import MetafileError, get_features, load, publish_checkpoint, write_checkpoint
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.metafile import read_metafile
from mmkernel.zoo.publish import add_row, row_text

METRICS = [{'Task': 'kNN', 'Dataset': 'digits', 'Metrics': {'Top 1 Accuracy': 97.5}, 'Source': 'measured by us'}]
ROW = {'In Collection': 'C', 'Config': 'configs/a/b.py'}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """(encoder, path) of a checkpoint as training writes it."""
    net = encoder('small')
    state = {f'backbone.{key}': value for key, value in net.backbone.state_dict().items()}
    path = tmp_path_factory.mktemp('run') / 'epoch_3.pth'
    meta = dict(epoch=3, iter=30, config="work_dir = '/home/me/runs'\nmodel = dict()\nload_from = None\n")
    write_checkpoint(
        dict(
            meta=meta,
            state_dict=state | {'neck.0.weight': torch.ones(4, 4)},
            optimizer=dict(state={0: dict(momentum_buffer=torch.ones(99999))}),
            random_states=[dict(torch=torch.ones(5056))],
        ),
        path,
    )
    return net, path


def loaded(path):
    cfg = dict(config('small'), work_dir='/home/me/runs', import_folders=['/home/me/code'], resume=False)
    return load(path, cfg, license='Apache-2.0', metrics=METRICS)


def test_publish(run, tmp_path):
    net, checkpoint = run
    found = publish_checkpoint(
        loaded(checkpoint), checkpoint, tmp_path, 'tiny_a', url='https://example.org/w/', row=ROW
    )
    sha256 = hashlib.sha256(found.path.read_bytes()).hexdigest()
    assert found.path.name == f'tiny_a-{sha256[:8]}.safetensors'
    assert found.difference == 0
    assert found.path.stat().st_size < checkpoint.stat().st_size / 2
    with safe_open(found.path, 'pt') as file:
        assert all(key.startswith('backbone.') for key in file.keys())  # noqa: SIM118
        meta = file.metadata()
    assert meta['config'] == config_text(
        config('small')
    )  # the one named, which was used, not the text in the checkpoint
    assert (meta['epochs'], meta['name']) == ('3', 'tiny_a')
    assert json.loads(meta['metrics']) == METRICS
    assert '/home' not in str(meta) + found.card.read_text()  # where it ran is nobody's business
    assert found.path.stat().st_mode == found.card.stat().st_mode  # as readable as any file
    images = net.images(3)
    assert torch.equal(get_features(load(found.path), images), net.extract(images))
    card = found.card.read_text()
    for text in (
        '| kNN | digits | Top 1 Accuracy 97.5 | measured by us |',
        'Apache-2.0',
        '32 x 32',
        'not stated',
        found.path.name,
    ):
        assert text in card
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([found.path.name, found.card.name])
    again = publish_checkpoint(loaded(checkpoint), checkpoint, tmp_path / 'again', 'tiny_a')
    assert again.path.read_bytes() == found.path.read_bytes()


def test_the_row_is_one_of_a_metafile(run, tmp_path):
    _, checkpoint = run
    found = publish_checkpoint(loaded(checkpoint), checkpoint, tmp_path, 'tiny_a', url='package:weights', row=ROW)
    path = tmp_path / 'metafile.yml'
    path.write_text('Collections: [{Name: C}]\n\nModels:\n' + row_text(found.entry))
    (info,), _ = read_metafile(path)
    assert (info.name, info.status, info.license) == ('tiny_a', 'measured by us', 'Apache-2.0')
    assert info.file('backbone').size == found.path.stat().st_size
    assert info.file('backbone').urls == (f'package:weights/{found.path.name}',)
    assert len(info.file('backbone').sha256) == 64
    assert info.results == tuple(METRICS)


def test_without_a_link_the_row_says_so(run, tmp_path):
    _, checkpoint = run
    entry = publish_checkpoint(loaded(checkpoint), checkpoint, tmp_path, 'tiny_a').entry
    assert entry['Status'].startswith('not uploaded: tiny_a-')
    assert not {'Files', 'Weights'} & set(entry)


def test_half_precision(run, tmp_path):
    net, checkpoint = run
    whole = publish_checkpoint(loaded(checkpoint), checkpoint, tmp_path, 'tiny_a')
    half = publish_checkpoint(loaded(checkpoint), checkpoint, tmp_path, 'tiny_a', half=True)
    assert half.path.stat().st_size < 0.8 * whole.path.stat().st_size
    assert 0 < half.difference < 5e-3
    images = net.images(3)
    torch.testing.assert_close(get_features(load(half.path), images), net.extract(images), rtol=0.02, atol=0.02)
    with safe_open(half.path, 'pt') as file:
        assert file.get_tensor('backbone.conv1.weight').dtype == torch.float16
        assert file.get_tensor('backbone.bn1.running_var').dtype == torch.float32


def test_the_whole_model(run, tmp_path):
    _, checkpoint = run
    found = publish_checkpoint(loaded(checkpoint), checkpoint, tmp_path, 'tiny_a', stage='model')
    with safe_open(found.path, 'pt') as file:
        assert 'neck.0.weight' in file.keys()  # noqa: SIM118
    assert found.difference == 0


def test_weights_that_no_step_has_changed_are_refused(run, tmp_path):
    net, _ = run
    state = {f'backbone.{key}': value for key, value in net.backbone.state_dict().items()}
    write_checkpoint(dict(meta=dict(epoch=0, iter=0), state_dict=state), tmp_path / 'epoch_0.pth')
    with pytest.raises(UntrainedError, match='never trained'):
        publish_checkpoint(loaded(tmp_path / 'epoch_0.pth'), tmp_path / 'epoch_0.pth', tmp_path / 'out', 'tiny_a')
    assert not (tmp_path / 'out').exists()


TEXT = """# a comment that stays
Collections: [{Name: C}]

Models:
  - Name: a_b
    In Collection: C
    Config: configs/a/b.py  # and this one
  - Name: a_c
    In Collection: C
    Config: configs/a/c.py

Other Weights:
  - Name: a_d
    In Collection: C
    Note: of another architecture.
    Source: here
    License: MIT
    Status: link not checked
    Weights: https://example.org/d.pth
    Files: [{Name: d.pth, Stage: other, URLs: ['https://example.org/d.pth']}]
"""


def entry(name):
    file = dict(Name='w.safetensors', Stage='backbone', URLs=['https://example.org/w.safetensors'], KeyMap='mmkernel')
    return {
        'Name': name,
        **ROW,
        'Weights': file['URLs'][0],
        'Files': [file],
        'Source': 'here',
        'License': 'MIT',
        'Status': 'x',
    }


@pytest.mark.parametrize('name', ['a_b', 'a_c', 'a_new'])
def test_a_row_is_put_into_a_metafile(tmp_path, name):
    path = tmp_path / 'metafile.yml'
    path.write_text(TEXT)
    add_row(path, entry(name))
    new = path.read_text()
    kept = iter(new.splitlines())
    assert all(line in kept for line in TEXT.splitlines())  # in their order
    models, _ = read_metafile(path)
    info = next(m for m in models if m.name == name)
    assert info.file('backbone').name == 'w.safetensors'
    assert info.config == ('configs/a/c.py' if name == 'a_c' else 'configs/a/b.py')
    assert len(models) == (4 if name == 'a_new' else 3)
    with pytest.raises(MetafileError, match='has files already'):
        add_row(path, entry(name))


def test_a_row_that_is_not_one_changes_nothing(tmp_path):
    path = tmp_path / 'metafile.yml'
    path.write_text(TEXT)
    with pytest.raises(MetafileError, match='snake case'):
        add_row(path, entry('Not-Snake'))
    assert path.read_text() == TEXT
    assert [p.name for p in tmp_path.iterdir()] == ['metafile.yml']
    assert yaml.safe_load(row_text(entry('a_b')))[0]['Name'] == 'a_b'
