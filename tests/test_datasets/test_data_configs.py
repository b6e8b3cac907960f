import itertools
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from photographs import assert_close, on_device, photograph

from mmkernel.datasets import PatchView, ViewDataset
from mmkernel.datasets.sources import Source
from mmkernel.registry import DATASETS, TRANSFORMS

SHAPES = dict(
    imagenet_two_views=[224] * 2,
    imagenet20_two_views=[224] * 2,
    imagenet_strong_views=[224] * 2,
    imagenet_multicrop=[224] * 2 + [96] * 6,
    imagenet_obow_views=[224] + [160] * 2 + [96] * 5,
    imagenet_2p6_views=[224] * 2 + [98] * 6,
    imagenet_4p6_views=[224] * 4 + [96] * 6,
    imagenette_four_views=[128] * 4,
    stl10_two_views=[64] * 2,
    cifar10_two_views=[32] * 2,
    cifar10_pack_two_views=[32] * 2,
    digits_two_views=[16] * 2,
)


FRAGMENTS = (Path(__file__).parents[2] / 'configs/_base_').glob('[cis]*_*.py')
RECIPES = sorted(path.stem for path in FRAGMENTS if path.stem.endswith(('views', 'view', 'multicrop', 'patches')))


class Photos(Source):
    def __init__(self, channels):
        super().__init__()
        self.labels, self.classes, self.channels = np.zeros(4, np.int64), [], channels

    def read(self, i):
        return np.random.default_rng(i).integers(0, 256, (90, 120, self.channels), np.uint8)

    def name(self, i):
        return f'photo {i}'


@pytest.fixture
def load(repository):
    return lambda name: Config.fromfile(repository / 'configs' / '_base_' / f'{name}.py')


@pytest.mark.parametrize('name', SHAPES)
def test_fragment(load, name):
    cfg = load(name)
    assert sorted(cfg) == ['data_preprocessor', 'evaluation', 'train_dataloader']
    channels = len(cfg.data_preprocessor.mean)
    assert channels == len(cfg.data_preprocessor.std) == (1 if 'digits' in name else 3)
    data = ViewDataset(Photos(channels), cfg.train_dataloader.dataset.views)
    for epoch in range(3):
        assert [tuple(x.shape) for x in data[(epoch, 1)]['inputs']] == [(channels, s, s) for s in SHAPES[name]]
    transform = TRANSFORMS.build(cfg.evaluation.transform)
    assert transform(data.source.image(0)).shape[2] == channels
    for source in (cfg.train_dataloader.dataset.source, cfg.evaluation.train, cfg.evaluation.test):
        kind = DATASETS.get(source.type)
        assert kind.expected_length(**{k: v for k, v in source.items() if k != 'type'}) is not None or 'pack' in name
    loader = cfg.train_dataloader
    assert loader.drop_last
    assert loader.sampler.type == 'EpochSampler'
    assert loader.collate_fn.type == 'collate_views'


def made_by_steps(steps, image, params, place):
    for step, drawn in zip(steps, params, strict=True):
        if drawn is not None and place == 'device' and step.floats is not None:
            image = on_device(step, image, drawn).astype(np.uint8)
        elif drawn is not None:
            image = step.exact(image, drawn) if place == 'exact' else step.apply(image, drawn)
    return image


@pytest.mark.parametrize('name', RECIPES)
def test_views_are_the_same_in_every_place(load, name):
    """Whole views of a photograph: by OpenCV in a worker, finished on the device, and by Pillow."""
    data = ViewDataset(Photos(3), load(name).train_dataloader.dataset.views)
    side = 32 if 'cifar' in name else 300
    for epoch in range(4):
        image = photograph(side, side + side // 4, seed=epoch)
        for view, drawn in zip(data.views.values(), data.draw(epoch, 0, *image.shape[:2]), strict=True):
            parent = None
            if isinstance(view, PatchView):  # the patches of one parent, which stays in the worker
                drawn_parent, corners, drawn = drawn
                parent = {
                    how: made_by_steps(view.parent.steps, image, drawn_parent, how) for how in ('exact', 'worker')
                }
            for k, params in enumerate(drawn):
                made = {}
                for place in ('exact', 'worker', 'device'):
                    picture = image
                    if parent is not None:
                        (top, left), (height, width) = corners[k], view.size
                        picture = parent['exact' if place == 'exact' else 'worker'][
                            top : top + height, left : left + width
                        ]
                    made[place] = made_by_steps(view.chain.steps, picture, params, place)
                assert_close(made['worker'], made['exact'])
                assert_close(made['device'], made['exact'])


def settings(cfg, path=''):
    for key, value in cfg.items():
        yield from settings(value, f'{path}{key}.') if isinstance(value, dict) else [(path + key, value)]


@pytest.mark.parametrize('name', SHAPES)
def test_no_setting_hides_in_a_list(load, name):
    assert not [
        k for k, v in settings(load(name)) if isinstance(v, list | tuple) and any(isinstance(x, dict) for x in v)
    ]


def test_recipe_of_two_views(load):
    views = load('imagenet_two_views').train_dataloader.dataset.views
    probabilities = {(v, op): views[v].ops[op].probability for v, op in itertools.product(views, views['first'].ops)}
    common = dict(flip=0.5, jitter=0.8, gray=0.2)
    assert probabilities == {
        **{(v, op): p for v in views for op, p in common.items()},
        ('first', 'blur'): 1.0, ('second', 'blur'): 0.1, ('first', 'solarize'): 0.0, ('second', 'solarize'): 0.2,
    }  # fmt: skip
    assert list(views['first'].ops) == ['flip', 'jitter', 'gray', 'blur', 'solarize']
    strong = load('imagenet_strong_views').train_dataloader.dataset.views
    assert [strong[v].ops[op].probability for v in strong for op in ('blur', 'solarize')] == [0.5, 0.0, 0.5, 0.0]


def test_subset_keeps_everything_else(load):
    whole, subset = load('imagenet_two_views'), load('imagenet20_two_views')
    assert subset.train_dataloader.dataset.source.images_per_class == subset.evaluation.train.images_per_class == 260
    assert subset.train_dataloader.dataset.views == whole.train_dataloader.dataset.views
    assert 'images_per_class' not in subset.evaluation.test
    assert DATASETS.get('ImageNet').expected_length(**subset.evaluation.train) == 260000
