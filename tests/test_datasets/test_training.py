import pickle

import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate
from torch.utils.data import DataLoader

from mmkernel.datasets import Digits, EpochSampler, EvaluationDataset, Source, ViewDataset, check_dataloader
from mmkernel.registry import DATASETS

CROP = dict(type='RandomResizedCrop', scale=(0.3, 1.0))
OPS = dict(
    affine=dict(type='RandomAffine', degrees=20.0),
    jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, probability=0.8),
    noise=dict(type='GaussianNoise', sigma=10.0, probability=0.5),
)
VIEWS = dict(
    large=dict(count=2, size=16, crop=CROP, ops=OPS),
    patches=dict(count=2, size=6, grid=(2, 2), parent=dict(size=14, crop=CROP), jitter=2),
)


class Squares(Source):
    """Images of different sizes, as a user would bring them."""

    def __init__(self, count=24):
        super().__init__()
        self.labels, self.classes = np.arange(count) % 3, ['a', 'b', 'c']

    def read(self, i):
        return np.random.default_rng(i).integers(0, 256, (20 + i, 30, 3), np.uint8)

    def name(self, i):
        return f'square {i}'


def dataset(seed=0, views=VIEWS, source=None):
    return ViewDataset(source or Squares(), views, seed=seed)


def epochs(workers, persistent=False, seed=0, count=2):
    """All inputs and indices of ``count`` epochs."""
    data = dataset(seed)
    sampler = EpochSampler(data, seed=seed)
    loader = DataLoader(data, 5, False, sampler, None, workers, default_collate, persistent_workers=persistent)
    out = []
    for epoch in range(count):
        sampler.set_epoch(epoch)
        out += [(batch['sample_index'], *batch['inputs']) for batch in loader]
    return out


def equal(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


def test_sample_and_batch():
    data = dataset()
    sample = data[(0, 4)]
    assert [tuple(x.shape) for x in sample['inputs']] == [(3, 16, 16)] * 2 + [(3, 6, 6)] * 2
    assert all(x.dtype == torch.uint8 and x.permute(1, 2, 0).is_contiguous() for x in sample['inputs'])
    assert (sample['sample_index'], sample['label']) == (4, 1)
    assert data.view_names == ['large', 'large', 'patches', 'patches']
    assert data.metainfo['classes'] == ['a', 'b', 'c']
    batch = default_collate([data[(0, i)] for i in range(3)])
    assert [tuple(x.shape) for x in batch['inputs']] == [(3, 3, 16, 16)] * 2 + [(3, 3, 6, 6)] * 2
    assert batch['sample_index'].tolist() == batch['label'].tolist() == [0, 1, 2]
    assert batch['label'].dtype == torch.int64


def test_views_depend_on_seed_epoch_index_and_view():
    views = {}
    for seed in (0, 1):
        data = dataset(seed, source=Squares(2))
        data.source.read = lambda i: np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)  # all equal
        for epoch in (0, 1):
            for index in (0, 1):
                for v, view in enumerate(data[(epoch, index)]['inputs']):
                    views[seed, epoch, index, v] = view.numpy().tobytes()
    assert len(set(views.values())) == len(views) == 32


def test_repeats_exactly_whatever_was_drawn_before():
    data, again = dataset(), dataset()
    for k in (7, 3, 5):
        again[(4, k)]
    assert all(torch.equal(x, y) for x, y in zip(data[(1, 5)]['inputs'], again[(1, 5)]['inputs'], strict=True))


def test_the_seed_may_be_set_later():
    data = dataset(seed=0)
    data.seed = 9
    assert torch.equal(data[(0, 0)]['inputs'][0], dataset(seed=9)[(0, 0)]['inputs'][0])
    assert not torch.equal(data[(0, 0)]['inputs'][0], dataset(seed=0)[(0, 0)]['inputs'][0])


@pytest.mark.parametrize('workers, persistent', [(1, False), (2, False), (2, True)])
def test_workers_change_nothing(workers, persistent):
    assert equal(epochs(0), epochs(workers, persistent))


def test_dataset_survives_the_way_to_spawned_workers():
    data = ViewDataset(dict(type='Digits'), dict(a=dict(size=16, crop=CROP, ops=OPS)))
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[(1, 2)]['inputs'][0], data[(1, 2)]['inputs'][0])


def test_epochs_differ_in_order_and_views():
    first, second = epochs(0)[:5], epochs(0)[5:]
    assert torch.cat([b[0] for b in first]).tolist() != torch.cat([b[0] for b in second]).tolist()
    assert sorted(torch.cat([b[0] for b in first]).tolist()) == list(range(24))
    one = {int(i): x for b in first for i, x in zip(b[0], b[1], strict=True)}
    two = {int(i): x for b in second for i, x in zip(b[0], b[1], strict=True)}
    assert not any(torch.equal(one[i], two[i]) for i in one)


def test_drawing_comes_before_making():
    data = dataset()
    drawn = data.draw(2, 5, 25, 30)
    made = data.make(data.source.image(5), drawn)
    assert all(np.array_equal(a.transpose(2, 0, 1), x) for a, x in zip(made, data[(2, 5)]['inputs'], strict=True))


def test_built_from_a_config_and_a_removed_view():
    cfg = dict(type='ViewDataset', source=dict(type='Digits', split='test'), views=dict(a=VIEWS['large'], b=None))
    data = DATASETS.build(cfg)
    assert len(data) == 360
    assert data.view_names == ['a', 'a']
    assert data[(0, 0)]['inputs'][0].shape == (1, 16, 16)


def test_errors():
    with pytest.raises(ValueError, match='has no views'):
        dataset(views={})
    with pytest.raises(TypeError, match="a source of images or its config.*got 'Digits'"):
        dataset(source='Digits')
    with pytest.raises(TypeError, match=r'indexed by \(epoch, index\), got 3.*EpochSampler'):
        dataset()[3]


def test_evaluation_dataset():
    source = Digits('test')
    data = EvaluationDataset(source, dict(type='CenterView', resize=None, crop=12))
    sample = data[7]
    (image,) = sample['inputs']
    assert image.shape == (1, 12, 12)
    assert np.array_equal(image[0], source.image(7)[2:-2, 2:-2, 0])
    assert (sample['sample_index'], sample['label']) == (7, source.label(7))
    assert len(data) == 360
    assert EvaluationDataset(source)[0]['inputs'][0].shape == (1, 16, 16)
    batch = next(iter(DataLoader(data, 8, collate_fn=default_collate)))
    assert [view.shape for view in batch['inputs']] == [(8, 1, 12, 12)]


def test_fewer_images_than_a_batch():
    data = dataset()
    loader = DataLoader(data, 32, sampler=EpochSampler(data), drop_last=True)
    with pytest.raises(ValueError, match='24 images per process make no batch of 32 .*batch_size to at most 24'):
        check_dataloader(loader)
    check_dataloader(DataLoader(data, 24, sampler=EpochSampler(data), drop_last=True))
