"""export, import and publish on the command line."""

import errno
import os

import pytest
import torch
import torchvision
import yaml

from mmkernel import writing
from mmkernel.cli import main
from mmkernel.engine import load_config
from mmkernel.evaluation import untrained_encoder
from mmkernel.zoo import load, read_checkpoint, write_checkpoint


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory, repository):
    """As a run on the digits leaves it, its config inside."""
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py')
    model = untrained_encoder(cfg)
    for key, value in model.state_dict().items():
        if key.endswith('num_batches_tracked'):
            value.fill_(220)
    path = tmp_path_factory.mktemp('run') / 'epoch_20.pth'
    meta = dict(epoch=20, iter=220, config=cfg.pretty_text)
    write_checkpoint(dict(meta=meta, state_dict=model.state_dict(), optimizer={}), path)
    return path


@pytest.mark.parametrize('command', ['export', 'import', 'publish', 'diagnose', 'embeddings', 'plot', 'knn'])
def test_a_read_only_place_is_named_before_the_work(checkpoint, tmp_path, monkeypatch, repository, capsys, command):
    def refuse(folder):
        raise OSError(errno.EROFS, 'Read-only file system')

    monkeypatch.setattr(writing, 'probe', refuse)
    for work in (
        'mmkernel.zoo.export.reference',
        'mmkernel.evaluation.sample_cloud',
        'mmkernel.cli.kernel_lab.kernel_profile',
    ):
        monkeypatch.setattr(work, lambda *_: pytest.fail('it began to work'))
    out, file = str(tmp_path / 'out'), str(checkpoint)
    published = next((repository / 'mmkernel/weights').glob('sfrik_digits_L1*.safetensors'))
    words = {
        'export': ['export', file, '--to', 'safetensors', '--out', f'{out}.safetensors'],
        'import': ['import', str(published), '--out', f'{out}.safetensors'],
        'publish': ['publish', file, '--name', 'digits', '--out', out],
        'diagnose': ['diagnose', file, '--out', out],
        'embeddings': ['diagnose', file, '--text', '--save-embeddings', f'{out}.npz'],
        'plot': ['kernel', 'compare', 'RBFKernel', '--width', '8', '--out', f'{out}.png'],
        'knn': ['knn', str(repository / 'configs/sfrik/digits_L3.py'), '--out', f'{out}.json', '--no-cache'],
    }[command]  # fmt: skip
    with pytest.raises(SystemExit) as error:
        main(words)
    assert 'cannot be written (Read-only file system)' in f'{error.value}{capsys.readouterr().err}'
    assert os.listdir(tmp_path) == []


def test_export(checkpoint, tmp_path, capsys):
    main(['export', str(checkpoint), '--to', 'safetensors', '--out', str(tmp_path / 'a.safetensors')])
    text = capsys.readouterr().out
    assert '78/78 tensors, 0 missing, 0 unexpected' in text
    assert 'read back and run: largest difference of features' in text
    assert load(tmp_path / 'a.safetensors')(torch.rand(3, 1, 16, 16)).shape == (3, 96)
    with pytest.raises(SystemExit, match='no ResNet with the 3x3 stem'):
        main(['export', str(checkpoint), '--to', 'timm', '--out', str(tmp_path / 'b.safetensors')])
    with pytest.raises(SystemExit, match=r"mmkernel export: There is no checkpoint 'nowhere.pth'"):
        main(['export', 'nowhere.pth', '--to', 'timm'])


def test_published_files_are_exported_without_a_config(checkpoint, tmp_path, capsys):
    main(
        ['export', str(checkpoint), '--to', 'safetensors', '--out', str(tmp_path / 'a.safetensors'), '--license', 'MIT']
    )
    main(['export', str(tmp_path / 'a.safetensors'), '--to', 'safetensors', '--size', '24'])
    assert load(tmp_path / 'a_safetensors.safetensors').pixels['size'] == (24, 24)
    assert read_checkpoint(tmp_path / 'a.safetensors')['meta']['license'] == 'MIT'
    assert "mmkernel.load('" in capsys.readouterr().out


def test_import(tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / 'theirs.pth')
    main(
        [
            'import',
            str(tmp_path / 'theirs.pth'),
            '--from',
            'torchvision',
            '--arch',
            'resnet18',
            '--license',
            'BSD-3-Clause',
        ]
    )
    text = capsys.readouterr().out
    assert '120/120 tensors' in text
    assert 'left aside: fc (2)' in text
    assert load(tmp_path / 'theirs_imported.safetensors').out_dim == 512
    with pytest.raises(SystemExit, match='another architecture'):
        main(['import', str(tmp_path / 'theirs.pth'), '--arch', 'resnet34'])


def test_import_of_a_published_file_keeps_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(['export', 'sfrik_digits_L3', '--to', 'safetensors', '--out', 'a.safetensors'])
    main(['import', 'a.safetensors'])
    before, after = (load(name).facts for name in ('a.safetensors', 'a_imported.safetensors'))
    assert before['name'] == 'sfrik_digits_L3'
    assert {key: after[key] for key in before} == before
    assert '(as the file says)' in capsys.readouterr().out


def test_publish(checkpoint, tmp_path, capsys):
    metafile = tmp_path / 'metafile.yml'
    metafile.write_text('Collections: [{Name: sfrik}]\nModels:\n')
    metafile.write_text(
        'Collections: [{Name: sfrik}]\nModels:\n  - {Name: a, In Collection: sfrik, Config: configs/sfrik/a.py}\n'
    )
    common = ['publish', str(checkpoint), '--name', 'sfrik_digits_mine', '--out', str(tmp_path), '--half']
    result = ['--result', 'Linear probe', 'digits', 'Top 1 Accuracy', '97.1', '--trained-on', 'digits']
    main(
        [
            *common,
            *result,
            '--config',
            'configs/sfrik/digits_L3.py',
            '--url',
            'https://example.org',
            '--metafile',
            str(metafile),
        ]
    )
    (file,) = tmp_path.glob('*.safetensors')
    row = yaml.safe_load(metafile.read_text())['Models'][1]
    assert row['Files'][0]['Name'] == file.name
    assert row['Results'][0]['Source'] == 'measured by us, epoch 20'
    assert row['Metadata'] == {'Training Data': 'digits', 'Epochs': 20}
    assert 'alignment_weight' in file.with_suffix('.md').read_text()
    assert 'half precision' in capsys.readouterr().out
    main([*common, *result])
    assert "Status: 'not uploaded" in capsys.readouterr().out
    for more, text in (
        (['--result', 'a', 'b', 'c', 'good'], 'the value is a number'),
        (['--metafile', 'x'], 'needs --url'),
    ):
        with pytest.raises(SystemExit, match=text):
            main([*common, *more])
