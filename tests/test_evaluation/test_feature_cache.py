"""Features on disk: the same numbers, computed once, and never those of other weights or images."""

import errno
import json
import os

import numpy as np
import pytest
import torch
from mmengine.config import Config
from multiprocess import run_processes
from torch import nn

from mmkernel.evaluation import (
    evaluate,
    extract_features,
    raw_pixels,
    weighted_knn,
)
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


def test_files_that_were_replaced_are_noticed(tmp_path):
    from PIL import Image

    for i in range(3):
        Image.fromarray(np.full((16, 16), i, np.uint8)).save(tmp_path / f'{i}.png')
    source = dict(type='ImageFolder', root=str(tmp_path), mode='L')
    model = Encoder()
    get(model, tmp_path / 'cache', source)
    Image.fromarray(np.full((16, 16), 200, np.uint8)).save(tmp_path / '1.png')
    get(model, tmp_path / 'cache', source)
    Image.fromarray(np.full((16, 16), 9, np.uint8)).save(tmp_path / '3.png')
    assert len(get(model, tmp_path / 'cache', source)[0]) == 4


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
    for features, y, _ in found:
        torch.testing.assert_close(features, expected)
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
