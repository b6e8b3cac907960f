"""Encoders judged on images that the command line names, by a checkpoint, a name of the zoo or a file of another library."""

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mmkernel.cli import main
from mmkernel.engine import load_config, write_checkpoint
from mmkernel.evaluation import untrained_encoder

CLASSES = ('ant', 'bee', 'cat')
SMALL = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (16, 16)}


def photographs(folder, count, classes=CLASSES, first=0):
    """A folder of ``count`` images for each class, which its colour tells; of different sizes."""
    rng = np.random.default_rng(first)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = rng.integers(0, 90, (20 + i, 24, 3), np.uint8)
            image[..., CLASSES.index(name) if name in CLASSES else 0] += 120
            Image.fromarray(image).save(folder / name / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def place(tmp_path_factory, repository):
    """A folder with a run of one step, an encoder alone, a torchvision file, and images."""
    root = tmp_path_factory.mktemp('judge')
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', SMALL)
    model = untrained_encoder(cfg, 5)
    images = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    model.embeddings([images, images])
    meta = dict(epoch=1, iter=11, config=cfg.pretty_text)
    write_checkpoint(dict(meta=meta, state_dict=model.state_dict()), root / 'run.pth')
    write_checkpoint(dict(meta=meta, state_dict=model.backbone.state_dict()), root / 'encoder.pth')
    cfg.pop('evaluation')
    write_checkpoint(dict(meta=dict(meta, config=cfg.pretty_text), state_dict=model.state_dict()), root / 'bare.pth')
    torch.save(timm.create_model('resnet18').state_dict(), root / 'resnet18.pth')
    torch.save(timm.create_model('convnext_atto', num_classes=0).state_dict(), root / 'convnext.pth')
    photographs(root / 'all', 10)
    photographs(root / 'a', 6)
    photographs(root / 'b', 3, first=1)
    photographs(root / 'other', 3, ('bee', 'cow'))
    photographs(root / 'one', 3, ('ant',))
    photographs(root / 'lone', 1)
    (root / 'split').mkdir()
    (root / 'split/train').symlink_to(root / 'a')
    (root / 'split/val').symlink_to(root / 'b')
    photographs(root / 'mixed', 3)
    Image.new('RGB', (20, 20)).save(root / 'mixed/loose.png')
    (root / 'empty').mkdir()
    (root / 'text.txt').write_text('no image')
    return root


@pytest.fixture(autouse=True)
def here(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    return tmp_path


@pytest.fixture
def call(here):
    """words -> the result file of a command."""

    def run(command, *words, fast=('--no-raw', '--no-cache')):
        main([command, *map(str, words), *fast, '--out', str(here / 'out.json')])
        return json.loads((here / 'out.json').read_text())

    return run


def test_a_checkpoint_alone_is_enough(call):
    by_config = call('knn', 'run.pth', '--k', 5)
    assert [row['name'] for row in by_config['rows']] == ['untrained encoder', 'trained encoder']
    assert by_config['config'] == 'of the checkpoint'
    assert by_config['rows'][1]['scores']['5']['top1'] > 20


def test_the_folder_of_a_run(call, here):
    write_checkpoint(torch.load('run.pth', weights_only=True), here / 'epoch_1.pth')
    found = call('knn', here, '--k', 5)
    assert found['checkpoint'] == str(here / 'epoch_1.pth')
    assert found['rows'] == call('knn', 'run.pth', '--k', 5)['rows']


def test_the_default_place_is_beside_the_checkpoint(place):
    main(['linear', 'run.pth', '--no-raw', '--no-cache', '--protocol', 'lbfgs'])
    assert json.loads((place / 'linear.json').read_text())['benchmark'] == 'linear'
    (place / 'linear.json').unlink()


@pytest.mark.parametrize('config', [('CONFIG', 'run.pth'), ('run.pth', '--config', 'CONFIG')])
def test_a_config_beside_it(call, repository, config):
    given = [str(repository / 'configs/sfrik/digits_L3.py') if word == 'CONFIG' else word for word in config]
    options = ('--cfg-options', *[f'{key}={value}' for key, value in SMALL.items()])
    rows = call('knn', *given, '--k', 5, *options)['rows']
    assert rows == call('knn', 'run.pth', '--k', 5)['rows']


def test_own_images_divided_by_seed(call, capsys):
    found = call('knn', 'run.pth', '--data', 'all', '--k', 3)
    assert (
        '24 images to learn from, 6 to be judged on, drawn of each class with seed 0; 16 px' in capsys.readouterr().out
    )
    again = call('knn', 'run.pth', '--data', 'all', '--k', 3)
    assert found['rows'] == again['rows']
    assert found['settings']['data']['test'] == dict(
        type='Subset', source=dict(type='ImageFolder', root='all', mode='L', labels=True), fraction=0.2, seed=0
    )


def test_own_images_in_two_folders(call):
    named = call('knn', 'run.pth', '--train', 'a', '--test', 'b', '--k', 3)
    assert named['rows'] == call('knn', 'run.pth', '--data', 'split', '--k', 3)['rows']
    quoted = "dict(type='ImageFolder', root='b', labels=True, mode='L')"
    assert named['rows'] == call('knn', 'run.pth', '--train', 'a', '--test', quoted, '--k', 3)['rows']


def test_raw_pixels_alone(call):
    (row,) = call('knn', 'none', '--data', 'all', '--size', 8, '--k', 3, fast=('--no-cache',))['rows']
    assert (row['name'], row['width'], row['scores']['3']['top1']) == ('raw pixels', 192, 100)


def test_a_name_of_the_zoo(call):
    rows = call('knn', 'sfrik_digits_L3', '--data', 'all', '--k', 3, '--size', 24)['rows']
    assert [row['width'] for row in rows] == [96, 96]
    assert call('knn', 'sfrik_digits_L3', '--k', 10)['rows'][1]['scores']['10']['top1'] == pytest.approx(
        99.17, abs=0.01
    )


@pytest.mark.parametrize('words', [('resnet18.pth',), ('convnext.pth', '--arch', 'convnext_atto')])
def test_a_file_of_another_library_needs_no_config(call, words, capsys):
    found = call('knn', *words, '--train', 'a', '--test', 'b', '--size', 32, '--k', 3)
    assert [row['name'] for row in found['rows']] == ['untrained encoder', 'trained encoder']
    assert found['rows'][0]['scores'] != {}
    assert '18 images to learn from, 9 to be judged on; 32 px' in capsys.readouterr().out


def test_a_classifier_on_a_file_of_another_library(here):
    words = ('resnet18.pth', '--protocol', 'linear_digits', '--train', 'a', '--test', 'b', '--size', 32, '--out', here)
    main(['classify', *map(str, words), '--cfg-options', 'train_cfg.max_epochs=1', 'log_level=ERROR'])
    (row,) = json.loads((here / 'classify.json').read_text())['rows']
    assert (row['name'], row['width'], row['images']) == ('trained encoder', 512, 18)


@pytest.mark.slow
def test_several_processes_give_what_one_gives(call, place, here):
    """Each takes its share of the images; the first speaks alone."""
    out = here / 'two.json'
    launch = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '-m', 'mmkernel']
    words = ['knn', 'run.pth', '--k', '5', '--out', str(out), '--cache', str(here / 'cache'), '--json']
    done = subprocess.run([*launch, *words], cwd=place, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == json.loads(out.read_text())
    assert json.loads(done.stdout)['rows'] == call('knn', 'run.pth', '--k', 5, fast=('--no-cache',))['rows']


def test_features_for_others(here, capsys):
    out = here / 'features.npz'
    main(['features', 'run.pth', '--data', 'mixed', '--no-cache', '--out', str(out), '--json'])
    assert json.loads(capsys.readouterr().out)['images'] == 10
    with np.load(out) as arrays:
        assert arrays['features'].shape == (10, 4)
        assert set(arrays['labels']) == {-1}
        assert {'ant/0.png', 'loose.png'} < set(arrays['names'])
    main(['features', 'run.pth', '--data', 'a', '--no-cache', '--out', str(out), '--stage', 'neck'])
    with np.load(out) as arrays:
        assert arrays['features'].shape == (18, 16)
        assert list(arrays['classes'][arrays['labels']]) == [name for name in CLASSES for _ in range(6)]
    assert (here / 'features.npz.old').is_file()


def test_diagnosis_of_own_images(capsys):
    main(['diagnose', 'run.pth', '--data', 'mixed', '--text', '--json'])
    found = json.loads(capsys.readouterr().out)
    assert (found['statistics']['images'], found['about']['images']) == (10, 'ImageFolder')


def test_a_classifier_on_own_images(here, repository, capsys):
    words = ('run.pth', '--protocol', 'linear_digits', '--data', 'all', '--out', str(here), '--json')
    main(['classify', *words, '--cfg-options', 'train_cfg.max_epochs=1', 'log_level=INFO'])
    printed = json.loads(capsys.readouterr().out)  # the log of the run goes to stderr
    assert printed == json.loads((here / 'classify.json').read_text())
    (row,) = printed['rows']
    assert (row['images'], row['width'], row['name']) == (24, 4, 'trained encoder')
    main(['classify', str(here / 'trained/epoch_1.pth'), '--test-only', *words[1:5]])
    assert f'{row["top1"]:.1f}/{row["top5"]:.1f}' in capsys.readouterr().out


def test_training_takes_no_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    with pytest.raises(SystemExit, match='--device cpu goes with --test-only; training takes a GPU that it sees'):
        main(['classify', 'run.pth', '--protocol', 'linear_digits', '--device', 'cpu'])


def test_transfer_to_own_images(call):
    (row,) = call('transfer', 'run.pth', '--data', 'all', '--penalties', 1)['rows'][1:]
    assert row['scores']['all']['train'] == 24


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        ('knn', 'expected [CONFIG] CHECKPOINT, a config ending in .py; got nothing'),
        ('knn a b c', 'expected [CONFIG] CHECKPOINT, a config ending in .py; got a b c'),
        ('knn none', "'none' has no config inside: name one, CONFIG none"),
        ('knn none --data all', 'does not tell the size of images'),
        ('knn none --data all --size 8 --no-raw', '--no-raw leaves nothing to judge'),
        ('transformation none --data all --size 8', 'name a checkpoint or a config'),
        ('features none --data all', 'CONFIG none, for its untrained encoder.'),
        ('features run.pth --data all --batch-size 0', '--batch-size=0; expected'),
        ('classify none --protocol linear_digits', 'name one, CONFIG none'),
        ('knn nowhere.pth', "There is no checkpoint 'nowhere.pth', and the zoo has no model of that name"),
        ('knn sfrik_digits_L4', "the zoo has no model of that name. Did you mean 'sfrik_digits_L"),
        ('knn run.pth --data nowhere', 'nowhere'),
        ('knn run.pth --data empty', "no images in '"),
        ('knn run.pth --data text.txt', "'text.txt' is none of .npz, .tar, .parquet"),
        ('knn run.pth --data mixed', "'mixed': 10 of 10 images have no class; expected a folder for each class"),
        ('knn run.pth --data one', "'one': all 2 training images are of one class ('ant')"),
        ('knn run.pth --data lone', "'lone' has one image of 'ant', 'bee', 'cat'; --data keeps a fifth"),
        ('knn run.pth --train a', '--train needs --test'),
        ('knn run.pth --test a', '--test needs --train'),
        ('knn run.pth --train a --test b --data all', '--data divides one set of images, --train and --test name two'),
        ('knn run.pth --train a --test other', 'list different classes: cow is not among those of the training'),
        ('knn run.pth --data all --size 0', '--size 0; expected the side of the images in pixels'),
        ('knn run.pth --data {type=1', 'is not a source; expected'),
        ('knn run.pth --k 0', 'k=0; expected'),
        ('knn run.pth --seed x', 'Invalid value for --seed: unable to convert "x" into int'),
        ('knn run.pth --stage nek', 'Did you mean "neck"?'),
        ('knn run.pth --device gpu', "device 'gpu' cannot be used here; there is cpu"),
        ('knn bare.pth', "bare.pth: the config has no 'evaluation' part"),
        ('knn bare.pth', 'Name images: --train FOLDER --test FOLDER, or --data FOLDER'),
        ('knn resnet18.pth', 'resnet18.pth: the file tells no images to be judged on. Name images: --train'),
        ('knn resnet18.pth --data all --stage neck', "'resnet18.pth' is an encoder alone: it has no neck"),
        ('knn resnet18.pth --data all --cfg-options a=1', "'resnet18.pth' has no config to change"),
        ('knn resnet18.pth --data all --arch resnet1', 'resnet1'),
        ('transformation resnet18.pth --data all', 'it has no neck, whose embeddings are asked for'),
        ('knn encoder.pth --stage neck', "'encoder.pth' holds no neck, whose embeddings are asked for"),
        ('transformation encoder.pth', "'encoder.pth' holds no neck"),
        ('transfer bare.pth --sets config', '--sets config: the config names no images'),
        ('features bare.pth', 'name them, --data FOLDER'),
        ('svm run.pth --root nowhere', 'VOC2007: folder'),
        ('classify run.pth', 'Which --protocol? A config, or one of '),
        ('classify run.pth --protocol linear_digit', "there is no such protocol. Did you mean 'linear_digits'?"),
        ('classify run.pth --protocol linear_digits --data mixed', 'images have no class'),
        ('classify run.pth --protocol linear_digits --try x', "--try takes KEY=VALUE, got 'x'"),
        ('classify sfrik_digits_L3 --protocol linear_digits --test-only', 'holds no classifier: a head that was never trained'),
        ('classify CONFIG none --protocol linear_digits --test-only', '--test-only measures a classifier'),
        ('semi run.pth --protocol semi_digits --data one', 'of one class'),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_one_line(words, said, here, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words.replace('CONFIG', 'configs/sfrik/digits_L3.py').split(), '--out', str(here / 'out')])
    text = stop.value.code if isinstance(stop.value.code, str) else capsys.readouterr().err.strip()
    assert said in text
    assert len(text.splitlines()) == 1
    assert not list(here.glob('*.json'))
