"""``mmkernel train --data FOLDER``: one command, a config that one can keep, a run that the config repeats bit for bit."""

import io
import shutil
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from mmkernel.cli import main
from mmkernel.cli.own_data import Asked, write_recipe
from mmkernel.cli.recipe_text import recipes
from mmkernel.engine import ConfigError, load_config, read_checkpoint

SMALL = ['--backbone', 'resnet10t', '--size', '32', '--epochs', '1']


def draw(path, number, mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((48, 40)).convert(mode).save(path)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """48 photographs in three folders."""
    root = tmp_path_factory.mktemp('own') / 'photos'
    for i in range(48):
        draw(root / 'abc'[i % 3] / f'{i}.jpg', i)
    return root


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp('own') / 'many'
    for i in range(260):
        draw(root / f'{i}.jpg', i)
    return root


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(data, **asked):
    """The config of a run on ``data``, which is not started."""
    written = write_recipe(Asked(str(data), **{'backbone': 'resnet10t', 'size': 32, **asked}), 'the command', False)
    return load_config(written.path)


def refused(*words):
    with pytest.raises(SystemExit) as stop:
        main(['train', *map(str, words)])
    assert '\n' not in str(stop.value)
    return str(stop.value)


def weights(folder):
    return read_checkpoint(folder / 'epoch_1.pth')['state_dict']


def test_one_command_and_its_config_repeats_it(photos, here, capsys):
    main(['train', '--data', str(photos), *SMALL])
    run, said = here / 'work_dirs/photos_sfrik_resnet10t_32', capsys.readouterr().out
    assert '48 images whose labels only the kNN monitor reads; batches of 8' in said
    assert 'effective rank' in said  # of the diagnosis
    assert 'mmkernel resume work_dirs/photos_sfrik_resnet10t_32 --cfg-options' in said
    assert (run / 'best_mmd2.pth').is_file()
    text = (run / 'recipe.py').read_text()
    assert f'mmkernel train --data {photos} {" ".join(SMALL)}\n' in text
    assert len(text.splitlines()) < 40
    main(['train', str(run / 'recipe.py'), '--out', str(here / 'again')])
    torch.testing.assert_close(weights(here / 'again'), weights(run), rtol=0, atol=0)
    before = {path: path.read_bytes() for path in run.rglob('*') if path.is_file()}
    said = refused('--data', photos, *SMALL)
    assert 'holds a run. mmkernel resume work_dirs/photos_sfrik_resnet10t_32 goes on with it; mmkernel train ' in said
    assert {path: path.read_bytes() for path in run.rglob('*') if path.is_file()} == before


def test_a_recipe_that_was_edited_is_not_overwritten(photos, here):
    written(photos, work_dir='run')
    written(photos, work_dir='run')  # nothing has happened: the same words again
    recipe = here / 'run/recipe.py'
    recipe.write_text(recipe.read_text().replace('max_epochs=100', 'max_epochs=7'))
    assert "recipe.py' is there, and says something else" in refused('--data', photos, *SMALL, '--out', 'run')
    assert 'max_epochs=7' in recipe.read_text()


def test_labels_are_for_the_monitor_alone(photos, here):
    cfg = written(photos)
    assert cfg.default_hooks.knn.type == 'KNNMonitorHook'
    assert (cfg.evaluation.test.type, cfg.evaluation.train.complement) == ('Subset', True)
    shutil.copytree(photos, here / 'loose')
    draw(here / 'loose/one.jpg', 99)
    cfg = written(here / 'loose')
    assert 'knn' not in cfg.default_hooks
    assert 'train' not in cfg.evaluation
    assert cfg.evaluation.test.root == cfg.train_dataloader.dataset.source.root == str(here / 'loose')


def test_a_folder_with_a_part_for_the_test(photos, here):
    for part in ('train', 'val'):
        shutil.copytree(photos, here / 'set' / part)
    cfg = written(here / 'set')
    assert cfg.train_dataloader.dataset.source.root == cfg.evaluation.train.root == str(here / 'set/train')
    assert cfg.evaluation.test.root == str(here / 'set/val')


def test_grey_images(here):
    for i in range(16):
        draw(here / f'scans/{i}.png', i, 'L')
    cfg = written('scans', seed=3)
    assert (cfg.model.backbone.in_channels, cfg.train_dataloader.dataset.source['mode']) == (1, 'L')
    assert len(cfg.data_preprocessor.mean) == 1
    assert cfg.randomness.seed == 3


def test_a_pack_and_shards(photos, here):
    files = sorted(photos.rglob('*.jpg'))
    content = [np.frombuffer(path.read_bytes(), np.uint8) for path in files]
    ends = np.cumsum([0, *map(len, content)])
    np.savez(here / 'pack.npz', train_jpeg=np.concatenate(content), train_off=ends)
    (here / 'shards').mkdir()
    with tarfile.open(here / 'shards/0.tar', 'w') as tar:
        for i, path in enumerate(files):
            info = tarfile.TarInfo(f'{i:04d}.jpg')
            info.size = path.stat().st_size
            tar.addfile(info, io.BytesIO(path.read_bytes()))
    assert written('pack.npz').train_dataloader.dataset.source.type == 'NpzPack'
    assert written('shards').train_dataloader.dataset.source.type == 'TarShards'


def test_what_has_the_size_of_the_images_fits_them(photos):
    cfg = written(photos, recipe='swav', epochs=10)
    assert (cfg.model.head.num_prototypes, cfg.model.head.queue_length) == (4, 24)
    assert cfg.default_hooks.queue.start_epoch == 0
    assert written(photos, recipe='moco').model.head.queue.length == 24
    few = written(photos, recipe='tico', size=64, epochs=5)
    assert few.param_scheduler.warmup_epochs == 0
    assert {view['size'] for view in few.train_dataloader.dataset.views.values()} == {64}
    assert all(view.ops.blur is None for view in few.train_dataloader.dataset.views.values())


def test_the_batch_grows_to_what_an_objective_needs(many):
    assert written(many).train_dataloader.batch_size == 64
    assert written(many, recipe='wmse').train_dataloader.batch_size == 128  # whitening needs more rows than widths
    with pytest.raises(ConfigError, match='whitening sub-batches of 128'):
        written(many, recipe='wmse', batch_size=64, work_dir='other')


def test_monitors_look_at_most_ten_times_and_at_the_end(many):
    for epochs, every in ((10, 10), (100, 20), (250, 25), (7, 7)):  # 4 steps in an epoch
        cfg = written(many, epochs=epochs, work_dir=str(epochs))
        assert cfg.default_hooks.best.interval == every


def test_crops_of_two_sizes_and_transformers(photos):
    cfg = written(photos, recipe='swav', backbone='vit_tiny_patch16_224', size=96)
    assert [view['size'] for view in cfg.train_dataloader.dataset.views.values()] == [96, 48]
    assert cfg.model.backbone.img_size == 96
    assert written(photos).model.backbone.get('small_images') is None  # its stem has several layers
    assert written(photos, backbone='resnet18').model.backbone.small_images


def test_any_name_of_a_folder_and_a_source_in_quotes(photos, here, capsys):
    folder = here / """it's a "b" c:\\new {x}"""
    shutil.copytree(photos, folder)
    main(['train', '--data', str(folder), *SMALL, '--dry-run'])
    assert written(folder, work_dir='a').train_dataloader.dataset.source.root == str(folder)
    source = f"dict(type='ImageFolder', root={str(photos)!r}, labels=True)"
    main(['train', '--data', source, *SMALL, '--dry-run'])
    cfg = written(source)
    assert (cfg.train_dataloader.dataset.source.root, 'knn' in cfg.default_hooks) == (str(photos), True)
    assert capsys.readouterr().out.count('steps per epoch') == 2


@pytest.mark.parametrize(
    'words, said',
    [
        (['--recipe', 'sfirk'], "no recipe 'sfirk'. Did you mean 'sfrik'"),
        (['--recipe', 'simclr/r51'], "Did you mean 'simclr/r50'"),
        (['--recipe', 'cpc'], 'What configs/cpc trains on is not views of whole images'),
        (['--backbone', 'resnet81'], "timm has no model 'resnet81'. Did you mean 'resnet18'"),
        (['--backbone', 'vit_tiny_patch16_224', '--size', '60'], 'Take a multiple of it, 48 or 64'),
        (['--batch-size', '64'], '--batch-size 64: there are 48 images'),
        (['--size', '0'], 'size=0; expected'),
        (['--cfg-options', 'modle.x=1'], "Did you mean 'model'"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(photos, here, words, said):
    assert said in refused('--data', photos, *words)
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    'words, said',
    [
        (['--data', 'nowhere'], "There is no folder or file 'nowhere' with images"),
        ([], 'mmkernel train CONFIG, or images of your own, mmkernel train --data FOLDER'),
        (['x.py', '--data', '.'], 'A config says where its images are'),
        (['x.py', '--epochs', '3'], '--epochs belong(s) to --data FOLDER'),
    ],
)
def test_words_that_do_not_go_together(words, said):
    assert said in refused(*words)


def test_a_folder_in_place_of_a_config(photos):
    assert f'To train on images in it: mmkernel train --data {photos}.' in refused(photos)


def test_few_images(here):
    for i in range(5):
        draw(here / f'few/{i}.jpg', i)
    assert '5 image(s) are too few to train on' in refused('--data', 'few')


def test_the_dry_run_writes_nothing(photos, here, capsys):
    option = 'default_hooks.probe.type=OnlineProbeHook'
    main(['train', '--data', str(photos), *SMALL, '--dry-run', '--cfg-options', option])
    said = capsys.readouterr().out
    assert f'--epochs 1 --cfg-options {option}\n' in said  # the command, in the docstring
    assert said.count('OnlineProbeHook') == 2  # there, and in the plan
    assert "_base_ = 'mmkernel::sfrik/" in said
    assert 'steps per epoch' in said
    assert not list(here.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize('size', [32, 64, 96])
@pytest.mark.parametrize('recipe', recipes())
def test_every_recipe_builds(many, recipe, size):
    written(many, recipe=recipe, size=size, backbone='resnet18')


@pytest.mark.slow
@pytest.mark.parametrize('recipe', recipes())
def test_every_recipe_trains(photos, many, here, recipe):
    data = many if recipe == 'wmse' else photos  # it takes more images than others
    main(['train', '--data', str(data), '--recipe', recipe, *SMALL, '--out', 'run'])
    assert (here / 'run/epoch_1.pth').is_file()
