import json
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from mmkernel.cli import main


@pytest.fixture
def folders(tmp_path):
    """train/{cat,dog}: 12 images, test/{cat,dog}: 4, no two alike."""
    generator = np.random.default_rng(0)
    for split, count in (('train', 12), ('test', 4)):
        for k in range(count):
            folder = tmp_path / split / ('cat', 'dog')[k % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (9, 11, 3), np.uint8)).save(folder / f'{k}.png')
    return tmp_path


def found_in(capsys, *words):
    main(['data', 'check', *map(str, words), '--json', '--workers', '0'])
    return json.loads(capsys.readouterr().out)


def test_a_table_for_a_person(folders, capsys):
    (folders / 'train' / 'notes.txt').write_text('hello')
    main(['data', 'check', str(folders / 'train'), '--test', str(folders / 'test'), '--workers', '1'])
    text = ' '.join(capsys.readouterr().out.split())
    assert '2 classes of 6' in text
    assert '.png 12' in text
    assert '.txt 1' in text
    assert '11 x 9 (12)' in text
    assert 'train: data_preprocessor = dict(mean=[0.' in text
    assert '# of 12 images, 3 channels' in text
    assert 'no two images have equal pixels' in text


def test_json_for_a_machine(folders, capsys):
    found = found_in(capsys, folders / 'train', '--limit', '5', '--seed', '3')
    assert found['sets']['train']['looked_at'] == 5
    assert found['sets']['train']['images'] == 12
    assert found['sets']['train']['unreadable'] == {}
    assert found['duplicates'] == dict(within=dict(train=[]), between={})


def test_an_image_of_the_test_in_the_training_ends_with_1(folders, capsys):
    shutil.copy(folders / 'train/cat/0.png', folders / 'test/cat/leak.png')
    with pytest.raises(SystemExit) as stop:
        main(['data', 'check', str(folders / 'train'), '--test', str(folders / 'test'), '--workers', '0'])
    assert stop.value.code == 1
    text = capsys.readouterr().out
    assert 'in train and test: images with equal pixels: 1' in text
    assert 'leak.png' in text


def test_copies_within_a_set_are_no_leak(folders, capsys):
    shutil.copy(folders / 'train/cat/0.png', folders / 'train/dog/copy.png')
    found = found_in(capsys, folders / 'train')
    ((first, second),) = found['duplicates']['within']['train']
    assert (first[-9:], second[-8:]) == ('cat/0.png', 'copy.png')


def test_an_unreadable_image_ends_with_1(folders, capsys):
    (folders / 'train/cat/half.jpg').write_bytes(b'\xff\xd8\xff')
    with pytest.raises(SystemExit) as stop:
        main(['data', 'check', str(folders / 'train'), '--workers', '0'])
    assert stop.value.code == 1
    text = capsys.readouterr().out
    assert 'train: unreadable: 1' in text
    assert 'half.jpg: cannot be decoded' in text


def test_a_config(repository, capsys):
    config = repository / 'configs/sfrik/digits_L3.py'
    options = ['--limit', '60', '--seconds', '0.05', '--cfg-options', 'train_dataloader.batch_size=32']
    found = found_in(capsys, config, *options)
    assert list(found['sets']) == ['train', 'test']  # evaluation.train is the training set
    assert found['sets']['train']['images'] == 1437
    assert found['loader']['batch_size'] == 32
    assert found['loader']['images_per_second'] > 0
    main(['data', 'check', str(config), '--limit', '20', '--seconds', '0', '--workers', '0'])
    text = ' '.join(capsys.readouterr().out.split())
    assert '20, random, seed 0' in text
    assert 'no two images have equal pixels among those looked at' in text


def test_a_source_in_quotes(folders, capsys):
    found = found_in(capsys, f"dict(type='ImageFolder', root='{folders}', mode='L')")
    assert list(found['sets']['train']['channels']) == ['1']
    assert found['sets']['train']['images'] == 16


def test_shards(folders, capsys):
    with tarfile.open(folders / 'a.tar', 'w') as tar:
        for k, path in enumerate(sorted(folders.glob('train/*/*.png'))):
            tar.add(path, f'{k}.png')
    for words in ([folders / 'a.tar'], [folders / 'a.tar', '--test', folders / 'train']):
        try:
            found = found_in(capsys, *words)
        except SystemExit:  # the same images in both
            found = json.loads(capsys.readouterr().out)
        assert found['sets']['train']['source'] == 'TarShards'
        assert found['sets']['train']['images'] == 12
    assert len(found['duplicates']['between']['train and test']) == 12


def test_an_interrupt_prints_what_was_seen_and_ends_with_130(folders, capsys, monkeypatch):
    def interrupted(batches, total, name):
        yield next(iter(batches))
        raise KeyboardInterrupt

    monkeypatch.setattr('mmkernel.cli.data.bar', interrupted)
    with pytest.raises(SystemExit) as stop:
        main(['data', 'check', str(folders / 'train'), '--test', str(folders / 'test'), '--workers', '0'])
    assert stop.value.code == 130
    assert 'images' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['nowhere'], "ImageFolder: folder 'nowhere' does not exist"),
        (['empty'], "no images in 'empty' or below"),
        (['words.txt'], "'words.txt' is none of .npz, .tar, .parquet, or a config"),
        (['nowhere.py'], "There is no config 'nowhere.py'"),
        (['nowhere.npz'], "'nowhere.npz' does not exist"),
        (['empty', '--limit', '0'], '--limit=0; expected'),
        (['empty', '--workers', '-1'], 'workers=-1; expected'),
        (["dict(type='ImageFoldr')"], 'ImageFoldr'),
        (["dict(root='empty')"], "dict(root='empty') is not a source"),
        (["dict(type='ImageFolder', root=empty())"], 'is not a source; expected'),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_line(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'words.txt').write_text('hello')
    with pytest.raises(SystemExit) as stop:
        main(['data', 'check', *words])
    assert said in str(stop.value)
    assert '\n' not in str(stop.value)


def test_an_archive_beside_images_does_not_hide_them(folders, capsys):
    for name in ('old.tar', 'pack.npz'):
        (folders / 'train/cat' / name).write_bytes(b'')
    assert found_in(capsys, folders / 'train/cat')['sets']['train']['images'] == 6
