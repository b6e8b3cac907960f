import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkernel.datasets import CorruptImageError, Source
from mmkernel.evaluation import evaluate, extract_features, feature_sets, raw_pixels, untrained_encoder, weighted_knn
from mmkernel.registry import DATASETS

TRAIN = dict(type='Digits', split='train', size=16)
TEST = dict(type='Digits', split='test', size=16)
MODEL = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet10t', in_channels=1),
    neck=dict(type='MLPNeck', dims=(16, 8)),
    head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 1.0))),
)
CONFIG = Config(
    dict(
        model=MODEL,
        data_preprocessor=dict(type='ViewPreprocessor', mean=[0.3], std=[0.4]),
        evaluation=dict(train=TEST, test=TEST, transform=None, batch_size=200, num_workers=0),
    )
)


class Pixel:
    """An 'encoder' whose feature is the first pixel and the mean."""

    def __init__(self):
        self.stages = []

    def extract(self, images, stage='backbone'):
        assert images.dtype == torch.uint8
        self.stages.append(stage)
        images = images.float().flatten(1)
        return torch.stack([images[:, 0], images.mean(1)], dim=1)


class Big(Source):
    """Two 64 x 64 colour images."""

    def __init__(self):
        super().__init__()
        self.labels, self.classes = np.array([1, 0]), ['a', 'b']

    def read(self, i):
        return np.full((64, 64, 3), 10 * i, np.uint8)


@pytest.mark.parametrize('rows', [[5, 2, 5], list(range(360))[::-1], [0] * 360, np.arange(359, -1, -1)], ids=len)
def test_features_of_named_rows_come_in_their_order(rows):
    source = DATASETS.build(TEST)
    every, labels = extract_features(Pixel(), source, num_workers=0)
    some, some_labels = extract_features(Pixel(), source, num_workers=0, rows=rows)
    rows = torch.as_tensor(rows)
    assert torch.equal(some, every[rows])
    assert torch.equal(some_labels, labels[rows])


@pytest.mark.parametrize('rows, cache', [([], None), ([1, 2], 'cache')])
def test_no_rows_and_rows_with_a_cache_are_refused(rows, cache, tmp_path):
    with pytest.raises(ValueError, match=rf'rows names {len(rows)} images, cache='):
        extract_features(Pixel(), TEST, rows=rows, cache=cache and tmp_path / cache)


@pytest.mark.parametrize('workers', [0, 2])
def test_features_come_in_the_order_of_the_source(workers):
    source, model = DATASETS.build(TEST), Pixel()
    seen = []
    features, labels = extract_features(
        model, source, batch_size=100, num_workers=workers, stage='neck', progress=lambda *at: seen.append(at)
    )
    assert features.shape == (360, 2)
    assert features.dtype == torch.float32
    assert torch.equal(labels, torch.as_tensor(source.labels))
    assert features[17, 1].item() == pytest.approx(source.image(17).mean(), rel=1e-5)
    assert set(model.stages) == {'neck'}
    assert seen == [(100, 360), (200, 360), (300, 360), (360, 360)]


def test_raw_pixels_are_grey_levels():
    source = DATASETS.build(TEST)
    features, labels = raw_pixels(source, num_workers=0)
    assert features.shape == (360, 256)
    np.testing.assert_allclose(features[5], source.image(5).reshape(-1) / 255, rtol=1e-6)
    assert torch.equal(labels, torch.as_tensor(source.labels))


def test_large_images_are_averaged():
    features, _ = raw_pixels(Big(), num_workers=0)
    assert features.shape == (2, 3 * 32 * 32)
    torch.testing.assert_close(features[1], torch.full((3072,), 10 / 255))


class Damaged(Source):
    """Every second of four images cannot be decoded."""

    def __init__(self, on_corrupt, **given):
        super().__init__(on_corrupt)
        self.labels, self.classes = np.arange(4), list('abcd')
        for name, value in given.items():
            setattr(self, name, value)

    def name(self, i):
        return f'photo-{i}'

    def read(self, i):
        if i % 2:
            raise CorruptImageError(f'{self.name(i)} cannot be decoded.')
        return np.full((4, 4, 1), i, np.uint8)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('cache', [False, True])
def test_substitutes_are_said_where_the_figures_are_made(workers, cache, tmp_path):
    with pytest.warns(UserWarning, match=r'2 of 4 images cannot be decoded and were replaced by others: photo-1'):
        features, labels = raw_pixels(
            Damaged('skip'), batch_size=1, num_workers=workers, cache=tmp_path if cache else None
        )
    assert (features[:, 0] * 255).round().tolist() == labels.tolist() == [0, 2, 2, 0]
    with pytest.raises(ValueError, match="substitute of a damaged image does not have: set on_corrupt='raise'"):
        raw_pixels(Damaged('skip', targets=np.eye(4)))


def test_an_empty_source_is_refused():
    empty = Big()
    empty.labels = []
    with pytest.raises(ValueError, match='holds no image'):
        raw_pixels(empty)


def test_untrained_encoder_is_seeded_and_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first, again, other = (untrained_encoder(CONFIG, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in model.backbone.parameters()]) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_rows_for_raw_pixels_and_encoders():
    seen = set()
    model = untrained_encoder(CONFIG)
    model.train()
    rows = evaluate(CONFIG, {'untrained encoder': model}, weighted_knn, progress=lambda name, *_: seen.add(name))
    assert [row['name'] for row in rows] == ['raw pixels', 'untrained encoder']
    assert [row['width'] for row in rows] == [256, model.backbone.out_dim]
    assert rows[0]['scores'][10]['top1'] > 90  # train and test are the same images here
    assert seen == {'raw pixels', 'untrained encoder'}
    assert model.training


def test_stage_neck_and_no_raw_pixels():
    (only,) = feature_sets(CONFIG, {'encoder': untrained_encoder(CONFIG)}, raw=False, stage='neck')
    assert only.train_x.shape == (360, 8)


def test_a_config_without_evaluation():
    with pytest.raises(KeyError, match="no 'evaluation' part"):
        list(feature_sets(Config(dict(model=MODEL)), {}))
