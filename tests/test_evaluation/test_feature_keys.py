"""The key of kept features covers what they depend on, and their checksums every byte that is read."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from mmkernel.datasets import ImageFolder, NpzPack, Source, Subset, TransformedSource
from mmkernel.evaluation import features, raw_pixels
from mmkernel.evaluation.feature_cache import files_digest, images_digest
from mmkernel.evaluation.features import encoder_digest


@pytest.fixture
def images(tmp_path):
    (tmp_path / 'images').mkdir()
    for i in range(40):
        save(tmp_path / 'images', i, 5 * i)
    return tmp_path / 'images'


def save(folder, i, value):
    Image.fromarray(np.full((6, 6, 3), value, np.uint8)).save(folder / f'{i:02d}.bmp')  # of one size whatever it shows


def in_place(folder, i):
    """Neither name, size nor time of modification tell."""
    before = os.stat(folder / f'{i:02d}.bmp')
    save(folder, i, 255)
    os.utime(folder / f'{i:02d}.bmp', ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize('i', [1, 7, 38])
@pytest.mark.parametrize('replace', [lambda folder, i: save(folder, i, 255), in_place], ids=['replaced', 'times kept'])
def test_any_image_replaced_under_its_name_is_noticed(images, tmp_path, i, replace):
    source = dict(type='ImageFolder', root=str(images))
    for given in (source, dict(type='Subset', source=source, fraction=1.0), ImageFolder(str(images))):
        raw_pixels(given, num_workers=0, cache=tmp_path / 'cache')
    replace(images, i)
    for given in (source, dict(type='Subset', source=source, fraction=1.0), ImageFolder(str(images))):
        kept = raw_pixels(given, num_workers=0, cache=tmp_path / 'cache')[0]
        assert torch.equal(kept, raw_pixels(given, num_workers=0)[0])
        assert (kept[i] == 1).all()


def test_what_stays_the_same_is_not_computed_again(images, tmp_path, monkeypatch):
    source = dict(type='ImageFolder', root=str(images))
    raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')
    reads, read = [], ImageFolder.read
    monkeypatch.setattr(ImageFolder, 'read', lambda self, i: reads.append(i) or read(self, i))
    raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')
    assert len(reads) == 16  # the looks at what the transform does


def test_files_of_every_kind_of_source(images, tmp_path):
    folder = ImageFolder(str(images))
    assert TransformedSource(folder, 'rotation').image_files() == folder.image_files()
    assert Subset(folder, fraction=0.1).image_files() == [folder.name(i) for i in Subset(folder, fraction=0.1).rows]
    pack = {'train_jpeg': np.frombuffer((images / '00.bmp').read_bytes(), np.uint8)}
    pack['train_off'] = np.array([0, len(pack['train_jpeg'])])
    np.savez(tmp_path / 'pack.npz', **pack)
    one = NpzPack(str(tmp_path / 'pack.npz'))
    assert one.image_files() == Subset(one, fraction=1.0).image_files() == [str(tmp_path / 'pack.npz')]
    before = files_digest(one)
    np.savez(tmp_path / 'pack.npz', **pack)
    assert files_digest(NpzPack(str(tmp_path / 'pack.npz'))) != before
    (images / '03.bmp').unlink()
    assert files_digest(folder) != files_digest(ImageFolder(str(images)))


def test_a_source_that_names_no_file_is_read():
    class Given(Source):
        labels, classes = np.full(40, -1), []
        images = np.zeros((40, 4, 4, 1), np.uint8)

        def read(self, i):
            return self.images[i]

        def name(self, i):
            return str(i)

    source = Given()
    before = files_digest(source)
    assert files_digest(Given()) == before
    source.images = source.images.copy()
    source.images[1, 0, 0] = 1
    assert files_digest(source) != before


def zero(content):
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


def flip(content):
    return content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]


@pytest.mark.parametrize('name', ['features.npy', 'labels.npy'])
@pytest.mark.parametrize('harm', [zero, flip])
def test_a_damaged_block_is_noticed_when_it_is_read(images, tmp_path, name, harm):
    kept = raw_pixels(ImageFolder(str(images)), num_workers=0, cache=tmp_path / 'cache')
    good = [part.clone() for part in kept]
    (file,) = (tmp_path / 'cache').glob(f'*/{name}')
    file.write_bytes(harm(file.read_bytes()))
    with pytest.warns(UserWarning, match='is damaged: its features are computed again'):
        again = raw_pixels(ImageFolder(str(images)), num_workers=0, cache=tmp_path / 'cache')
    assert all(torch.equal(x, y) for x, y in zip(good, again, strict=True))


def test_what_is_said_about_features_is_covered_too(images, tmp_path):
    raw_pixels(ImageFolder(str(images)), num_workers=0, cache=tmp_path)
    (file,) = tmp_path.glob('*/about.json')
    file.write_text(file.read_text().replace('"stage": "pixels"', '"stage": "pixelz"'))
    with pytest.warns(UserWarning, match='is damaged: its features are computed again'):
        raw_pixels(ImageFolder(str(images)), num_workers=0, cache=tmp_path)


class Nested:
    """A transform whose settings lie deep, or in an array."""

    def __init__(self, **settings):
        self.inner = [dict(part=type('Part', (), {})())]
        vars(self.inner[0]['part']).update(settings)

    def __call__(self, image):
        return image


class Inherited(Nested):
    def __call__(self, image):
        return super().__call__(image)  # holds on to its class


def shifted(by, image):
    return image + by


@pytest.mark.parametrize(
    'first, second',
    [
        (Nested(threshold=1), Nested(threshold=2)),
        (Nested(table=np.arange(3)), Nested(table=np.arange(3)[::-1])),
        (Nested(table=torch.zeros(2)), Nested(table=torch.zeros(2).double())),
        (lambda image: image.clip(0, 254), lambda image: image.clip(0, 253)),
        (partial(shifted, 0), partial(shifted, np.uint8(0))),
        (
            Inherited(lock=Lock(), module=os, a=1),
            Inherited(lock=Lock(), module=os, a=2),
        ),  # no pickle holds the first two
        (dict(type='CenterView', resize=None, crop=None), dict(type='CenterView', resize=None, crop=6)),
    ],
)
def test_transforms_differ_where_no_look_shows_it(images, first, second):
    source = ImageFolder(str(images))

    class Seen:
        def __init__(self):
            self.source = source

        def __len__(self):
            return 1

        def __getitem__(self, i):
            return dict(inputs=[torch.zeros(1)])

    assert images_digest(Seen(), source, first) == images_digest(Seen(), source, first)
    assert images_digest(Seen(), source, first) != images_digest(Seen(), source, second)


def test_the_same_transform_has_the_same_key_in_another_process():
    script = """
import torch
from test_feature_keys import Inherited
from mmkernel.hashes import content
print(content(Inherited(table=torch.ones(3), names={'a', 'bc', 'def'}, generator=torch.Generator())).hex())
"""
    keys = set()
    for seed in '12':  # of Python's hashes, and with them the order of a set
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        environment = {**os.environ, 'PYTHONHASHSEED': seed, 'PYTHONPATH': path}
        keys.add(
            subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, check=True).stdout
        )
    assert len(keys) == 1


def test_versions_and_precision_are_part_of_the_key(images, tmp_path, monkeypatch):
    source = ImageFolder(str(images))
    raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')
    monkeypatch.setattr(features, '__version__', '999')
    raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')
    with torch.autocast('cpu', torch.bfloat16):
        raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')
    assert len(list((tmp_path / 'cache').iterdir())) == 3


def test_buffers_that_no_state_dict_holds_count():
    model = nn.Linear(2, 2)
    before = encoder_digest(model)
    model.register_buffer('positions', torch.zeros(2), persistent=False)
    zeros = encoder_digest(model)
    model.positions += 1
    assert len({before, zeros, encoder_digest(model)}) == 3
