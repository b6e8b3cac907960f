import json

import pytest
import torch

from mmkernel.cli import main
from mmkernel.engine import load_config, write_checkpoint
from mmkernel.evaluation import untrained_encoder

SMALL = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (16, 16)}


def make_checkpoint(repository, path, steps=1, **meta):
    """Weights after ``steps`` forward passes in training mode, as a run of the digits recipe would save them."""
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', SMALL)
    model = untrained_encoder(cfg)
    for step in range(steps):
        images = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(step))
        model.embeddings([images, images])
    meta = dict(dict(epoch=1, iter=11, config=cfg.pretty_text), **meta)
    write_checkpoint(dict(meta=meta, state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='module')
def checkpoint(repository, tmp_path_factory):
    return make_checkpoint(repository, tmp_path_factory.mktemp('run') / 'epoch_1.pth')


def test_verdict_and_page(checkpoint, capsys):
    main(['diagnose', str(checkpoint), '--images', '80'])
    text = capsys.readouterr().out
    assert '80 images, width 16' in text
    assert 'null band' in text
    page = checkpoint.with_name('epoch_1_diagnosis')
    assert page.with_suffix('.png').stat().st_size > 30_000
    html = page.with_suffix('.html').read_text()
    assert 'data:image/png;base64,' in html
    assert 'src="http' not in html
    found = json.loads(page.with_suffix('.json').read_text())
    assert found['state'] in ('healthy', 'doubtful', 'collapsed')
    assert found['statistics']['images'] == 80
    assert found['about']['epoch'] == 1


def test_embeddings_of_other_weights_are_refused(repository, checkpoint, tmp_path, capsys):
    kept = tmp_path / 'kept' / 'cloud.npz'
    main(['diagnose', str(checkpoint), '--images', '40', '--text', '--save-embeddings', str(kept)])
    first = capsys.readouterr().out
    main(['diagnose', str(checkpoint), '--text', '--embeddings', str(kept)])
    second = capsys.readouterr().out
    assert second.strip() in first
    other = make_checkpoint(repository, tmp_path / 'epoch_2.pth', steps=2)
    with pytest.raises(SystemExit, match='come from other weights .* than the checkpoint named'):
        main(['diagnose', str(other), '--text', '--embeddings', str(kept)])


def test_a_checkpoint_that_was_never_trained_is_refused(repository, tmp_path):
    fresh = make_checkpoint(repository, tmp_path / 'fresh.pth', steps=0)
    with pytest.raises(SystemExit, match='was never trained: none of its 6 batch norms|was never trained: none of its'):
        main(['diagnose', str(fresh), '--text'])
    first = make_checkpoint(repository, tmp_path / 'epoch_0.pth', epoch=0, iter=0)
    with pytest.raises(SystemExit, match='written at epoch 0, step 0'):
        main(['diagnose', str(first), '--text'])


def test_where_the_config_comes_from(repository, checkpoint, tmp_path, capsys):
    bare = make_checkpoint(repository, tmp_path / 'bare.pth', config=None)
    with pytest.raises(SystemExit, match='Name it with --config'):
        main(['diagnose', str(bare), '--text'])
    config = str(repository / 'configs/sfrik/digits_L3.py')
    with pytest.raises(SystemExit, match='checkpoint of another architecture'):
        main(['diagnose', str(bare), '--text', '--config', config])
    options = [f'{key}={value}' for key, value in SMALL.items()]
    main(['diagnose', str(bare), '--text', '--config', config, '--images', '20', '--cfg-options', *options])
    assert '20 images' in capsys.readouterr().out
    (tmp_path / 'config.py').write_text(f'_base_ = {config!r}\n')
    with pytest.raises(SystemExit, match=f'There is one beside it: --config {tmp_path}/config.py'):
        main(['diagnose', str(bare), '--text'])  # it is Python, and is run when it is asked for


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--images', '1'], 'images=1: one embedding is not a cloud; expected at least 2'),
        (['--images', '0'], 'images=0'),
        (['--embeddings', 'nowhere.npz'], "there are no saved embeddings 'nowhere.npz'; --save-embeddings makes"),
        (['--embeddings', 'words.npz'], "'words.npz' is not a saved cloud of embeddings, or it is damaged"),
        (['--embeddings', 'half.npz'], "'half.npz' is not a saved cloud of embeddings, or it is damaged"),
        (['--out', 'words.npz/page'], "'words.npz/page.json' cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(checkpoint, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'words.npz').write_text('hello')
    (tmp_path / 'half.npz').write_bytes(b'PK\x03\x04' + bytes(200))
    with pytest.raises(SystemExit) as stop:
        main(['diagnose', str(checkpoint), *words])
    assert said in str(stop.value)
    assert '\n' not in str(stop.value)


def test_an_encoder_alone_has_no_embedding_to_look_at(checkpoint, tmp_path):
    whole = torch.load(checkpoint, weights_only=True)
    state = {key: value for key, value in whole['state_dict'].items() if key.startswith('backbone.')}
    write_checkpoint(dict(whole, state_dict=state), tmp_path / 'encoder.pth')
    with pytest.raises(SystemExit, match='holds an encoder alone.*expected a checkpoint of the pretraining'):
        main(['diagnose', str(tmp_path / 'encoder.pth'), '--text'])


def test_a_stem_with_a_point_keeps_it(checkpoint, tmp_path, capsys):
    main(['diagnose', str(checkpoint), '--images', '20', '--out', str(tmp_path / 'run_0.5')])
    assert {path.name for path in tmp_path.iterdir()} == {f'run_0.5.{suffix}' for suffix in ('png', 'html', 'json')}


def test_missing_file():
    with pytest.raises(SystemExit, match="There is no checkpoint 'nowhere/epoch_1.pth'"):
        main(['diagnose', 'nowhere/epoch_1.pth'])


@pytest.mark.slow
def test_the_doctor_tells_one_moment_from_three(repository, tmp_path, capsys):
    """Both digits recipes, trained in full."""
    for name, verdict in (('digits_L1', ' collapsed '), ('digits_L3', ' healthy ')):
        folder = tmp_path / name
        main(['train', str(repository / f'configs/sfrik/{name}.py'), '--work-dir', str(folder)])
        capsys.readouterr()
        main(['diagnose', str(folder / 'epoch_20.pth'), '--text'])
        assert verdict in capsys.readouterr().out.splitlines()[0]
        warned = 'the embedding has collapsed' in ''.join(log.read_text() for log in folder.glob('*/*.log'))
        assert warned == (name == 'digits_L1')
