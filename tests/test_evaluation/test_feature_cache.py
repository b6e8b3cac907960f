"""Features on disk: the same numbers, computed once, and never those of other weights or images.

The key covers what they depend on, and the checksums every byte that is read.
"""

import errno
import inspect
import json
import os
import subprocess
import sys
from functools import partial
from threading import Lock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from multiprocess import run_processes
from PIL import Image
from torch import nn

from mmkernel.datasets import ImageFolder, NpzPack, Source, Subset, TransformedSource
from mmkernel.evaluation import evaluate, extract_features, features, raw_pixels, weighted_knn
from mmkernel.evaluation.feature_cache import files_digest, images_digest
from mmkernel.evaluation.features import encoder_digest

SOURCE = dict(type='Digits', split='test', size=16)


VIEW = dict(type='CenterView', resize=None, crop=None)


class Encoder(nn.Module):
    """A linear map of pixels; counts the images that it has seen."""

    def __init__(self, seed=0):
        super().__init__()
        self.backbone = nn.Linear(256, 5)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.backbone.weight.normal_(generator=generator)
            self.backbone.bias.zero_()
        self.neck = nn.Linear(5, 3)
        self.seen = 0

    @torch.no_grad()
    def extract(self, images, stage='backbone'):
        self.seen += len(images)
        h = self.backbone(images.float().flatten(1) / 255)
        return self.neck(h) if stage == 'neck' else h


def get(model, folder, source=SOURCE, transform=VIEW, **kwargs):
    return extract_features(model, source, transform, 100, 0, cache=folder, **kwargs)


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_second_time_nothing_is_computed(tmp_path):
    model = Encoder()
    plain, labels = extract_features(model, SOURCE, VIEW, 100, 0)
    first, second = get(model, tmp_path), get(model, tmp_path)
    assert model.seen == 720  # 16 looks at the images themselves need no encoder
    for x, y in (first, second):
        assert torch.equal(x, plain)
        assert torch.equal(y, labels)
    assert len(entries(tmp_path)) == 1
    assert entries(tmp_path / entries(tmp_path)[0]) == ['about.json', 'features.npy', 'labels.npy']


def test_a_caller_that_writes_changes_its_own_copy(tmp_path):
    model = Encoder()
    x, _ = get(model, tmp_path)
    kept = x.clone()
    x += 1
    assert torch.equal(get(model, tmp_path)[0], kept)


def test_each_of_weights_stage_source_transform_and_normalisation_has_its_own_entry(tmp_path):
    model = Encoder()
    get(model, tmp_path)
    get(Encoder(seed=1), tmp_path)
    get(model, tmp_path, stage='neck')
    get(model, tmp_path, source=dict(SOURCE, split='train'))
    get(model, tmp_path, transform=dict(VIEW, crop=16))
    model.data_preprocessor = nn.Module()
    model.data_preprocessor.mean = torch.tensor([3.0])
    get(model, tmp_path)
    raw_pixels(SOURCE, VIEW, num_workers=0, cache=tmp_path)
    assert len(entries(tmp_path)) == 7


def test_one_changed_weight_changes_the_digest_and_training_mode_does_not():
    model = Encoder()
    before = encoder_digest(model)
    assert encoder_digest(model.train()) == encoder_digest(model.eval()) == before
    with torch.no_grad():
        model.backbone.bias[2] += 1e-6
    assert encoder_digest(model) != before
    assert encoder_digest(Encoder(), 'neck') != encoder_digest(Encoder(), 'backbone')


def test_an_encoder_that_fails_leaves_nothing_behind(tmp_path):
    model, whole = Encoder(), Encoder.extract
    model.extract = lambda images, stage: whole(model, images, stage) if model.seen < 200 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        get(model, tmp_path)
    assert entries(tmp_path) == []
    del model.extract
    assert len(get(model, tmp_path)[0]) == 360


def extract_on_a_rank(rank, world_size, folder):
    model = Encoder()
    features, labels = get(model, folder)
    with pytest.raises(RuntimeError, match='different encoders'):
        get(Encoder(seed=rank), folder)
    return features, labels, model.seen


def test_processes_share_the_work(tmp_path):
    expected, labels = extract_features(Encoder(), SOURCE, VIEW, 100, 0)
    found = run_processes(extract_on_a_rank, 2, str(tmp_path))
    assert sum(seen for *_, seen in found) == 360
    for x, y, _ in found:
        torch.testing.assert_close(x, expected)
        assert torch.equal(y, labels)
    (entry,) = tmp_path.iterdir()
    assert json.loads((entry / 'about.json').read_text())['images'] == 360


def test_benchmarks_share_it(tmp_path):
    cfg = Config(dict(evaluation=dict(train=SOURCE, test=SOURCE, transform=VIEW, batch_size=200, num_workers=0)))
    model = Encoder()
    first = evaluate(cfg, {'encoder': model}, weighted_knn, cache=tmp_path)
    assert evaluate(cfg, {'encoder': model}, weighted_knn, cache=tmp_path) == first
    assert model.seen == 360  # train and test are the same images here: one entry serves both


@pytest.mark.parametrize('damage', ['short', 'empty', 'gone', 'fewer'])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    model = Encoder()
    good = get(model, tmp_path)[0].clone()  # not the pages of the file that is damaged below
    (file,) = tmp_path.glob('*/features.npy')
    if damage == 'gone':
        file.unlink()
    elif damage == 'fewer':
        np.save(file, np.zeros((3, 5), np.float32))
    else:
        file.write_bytes(file.read_bytes()[: 1000 * (damage == 'short')])
    with pytest.warns(UserWarning, match='is damaged: its features are computed again'):
        again, _ = get(model, tmp_path)
    assert torch.equal(again, good)
    assert model.seen == 720
    assert len(entries(tmp_path)) == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match=r'features cannot be kept in .*/file.*--cache FOLDER.*--no-cache'):
        get(Encoder(), tmp_path / 'file')


@pytest.mark.skipif(not hasattr(os, 'posix_fallocate'), reason='space is not asked for on this system')
def test_a_full_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'posix_fallocate', full)
    with pytest.raises(OSError, match='MB cannot be kept in .*No space left on device.*--cache FOLDER'):
        get(Encoder(), tmp_path)
    assert entries(tmp_path) == []


def test_an_interrupted_extraction_leaves_nothing_and_starts_over(tmp_path):
    class Stops(Encoder):
        def extract(self, images, stage='backbone'):
            if self.seen >= 200:
                raise KeyboardInterrupt
            return super().extract(images, stage)

    with pytest.raises(KeyboardInterrupt):
        get(Stops(), tmp_path)
    assert entries(tmp_path) == []
    assert len(get(Encoder(), tmp_path)[0]) == 360


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


def test_a_new_image_is_noticed(images, tmp_path):
    source = dict(type='ImageFolder', root=str(images))
    for count in (40, 41):
        assert len(raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')[0]) == count
        save(images, count, 9)


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
    script = (
        inspect.getsource(Nested)
        + inspect.getsource(Inherited)
        + """
import torch
from mmkernel.hashes import content
print(content(Inherited(table=torch.ones(3), names={'a', 'bc', 'def'}, generator=torch.Generator())).hex())
"""
    )
    path = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', script],
            env={**os.environ, 'PYTHONHASHSEED': seed, 'PYTHONPATH': path},  # the seed decides the order of a set
            stdout=subprocess.PIPE,
        )
        for seed in '12'
    ]
    keys = {process.communicate()[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(keys) == 1
    assert len(*keys) > 100


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
