"""Views that are finished on the device: the worker's pictures to the tolerance, the same stream of batches whoever makes it."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.dataset import default_collate
from photographs import assert_close, photograph
from torch._dynamo.testing import CompileCounter
from torch.utils.data import DataLoader

import mmkernel.kernels.fused as module
from mmkernel.datasets import (
    EpochSampler,
    Operation,
    RandomFlip,
    Source,
    ViewDataset,
    collate_views,
)
from mmkernel.datasets.device_views import device_forms
from mmkernel.models import ViewPreprocessor
from mmkernel.registry import TRANSFORMS

CROP = dict(type='RandomResizedCrop', scale=(0.3, 1.0))
TAIL = dict(
    jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, probability=0.8),
    gray=dict(type='RandomGrayscale'),
    blur=dict(type='GaussianBlur', probability=0.5),
    solarize=dict(type='Solarize'),
    flip=dict(type='RandomFlip'),
)
TWO = dict(first=dict(size=32, crop=CROP, ops=TAIL), second=dict(size=32, crop=CROP, ops=TAIL))
PATCHES = dict(
    size=16, grid=(2, 2), count=4, parent=dict(size=40, crop=CROP, ops=dict(affine=dict(type='RandomAffine')))
)
MIXED = dict(
    both=dict(count=2, size=24, crop=CROP, ops=dict(affine=dict(type='RandomAffine'), **TAIL)),
    patches=dict(PATCHES, ops=TAIL),
    plain=dict(size=20, crop=CROP),
)  # fmt: skip


class Scenes(Source):
    """Images of different sizes, like photographs."""

    def __init__(self, count=24, channels=3):
        super().__init__()
        self.labels, self.classes, self.channels = np.arange(count) % 3, ['a', 'b', 'c'], channels

    def read(self, i):
        return photograph(50 + i, 70, self.channels, seed=i)

    def name(self, i):
        return f'scene {i}'


def batches(data, workers=0, persistent=False, epochs=(0, 1), seed=0):
    data.seed = seed
    sampler = EpochSampler(data, seed=seed)
    loader = DataLoader(
        data, 5, sampler=sampler, num_workers=workers, collate_fn=collate_views, persistent_workers=persistent
    )
    for epoch in epochs:
        sampler.set_epoch(epoch)
        yield from loader


def assert_equal_streams(one, other):
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            x, y = (part[key] if isinstance(part[key], list) else [part[key]] for part in (a, b))
            assert all(torch.equal(p, q) and p.stride() == q.stride() for p, q in zip(x, y, strict=True)), key


def assert_close_pictures(views, expected):
    for view, worker in zip(views, expected, strict=True):
        for one, other in zip(view, worker, strict=True):
            assert_close(one.numpy(), other.numpy())


def both_places(views, source=None, **options):
    """The views of a data set in the worker, and the data set on the device with what finishes them."""
    source = source or Scenes()
    device = ViewDataset(source, views, views_on='device', **options)
    return ViewDataset(source, views, views_on='worker', **options), device, device.place('cpu')


@given(
    seed=st.integers(0, 2**32), epoch=st.integers(0, 1000), index=st.integers(0, 23), channels=st.sampled_from([1, 3])
)
@settings(max_examples=25, deadline=None)
def test_whole_views_are_those_of_the_worker(seed, epoch, index, channels):
    worker, device, finish = both_places(
        dict(TWO, small=dict(TWO['first'], size=20)), Scenes(channels=channels), seed=seed
    )
    batch = collate_views([device[epoch, index]])
    assert_close_pictures(finish(batch['inputs'], batch['drawn']), collate_views([worker[epoch, index]])['inputs'])


RECIPES = ('imagenet_two_views', 'imagenet_multicrop', 'imagenet_obow_views', 'cifar10_two_views', 'stl10_two_views')


@pytest.mark.parametrize('name', RECIPES)
def test_every_recipe(repository, name, device):
    views = Config.fromfile(repository / f'configs/_base_/{name}.py').train_dataloader.dataset.views
    worker, auto = ViewDataset(Scenes(), views), ViewDataset(Scenes(), views)
    finish = auto.place('cuda')  # no device is touched
    batch, expected = (collate_views([data[1, i] for i in range(6)]) for data in (auto, worker))
    made = finish([x.to(device) for x in batch['inputs']], [x.to(device) for x in batch['drawn']])
    assert_close_pictures([view.cpu() for view in made], expected['inputs'])
    assert 'drawn' not in expected
    for steps in finish.steps:
        assert {type(step).__name__ for step in steps} <= {
            'RandomFlip',
            'ColorJitter',
            'RandomGrayscale',
            'GaussianBlur',
            'Solarize',
        }


@pytest.mark.parametrize('workers, persistent', [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize('place', ['cpu', 'cuda'])
def test_the_stream_is_the_same_for_any_number_of_workers(place, workers, persistent):
    def stream(*how, **options):
        data = ViewDataset(Scenes(), MIXED)
        assert (data.place(place) is None) == (place == 'cpu')
        return list(batches(data, *how, **options))

    whole = stream()
    assert ('drawn' in whole[0]) == (place == 'cuda')
    assert_equal_streams(whole, stream(workers, persistent))
    assert_equal_streams(whole[len(whole) // 2 :], stream(workers, persistent, epochs=(1,)))  # as after a resume


def test_finished_batches_do_not_depend_on_their_rows():
    _, device, finish = both_places(TWO)
    batch = collate_views([device[0, i] for i in range(6)])
    whole = finish(batch['inputs'], batch['drawn'])
    again = finish(batch['inputs'], batch['drawn'])
    parts = [
        finish([x[rows] for x in batch['inputs']], [x[rows] for x in batch['drawn']])
        for rows in (slice(2), slice(2, 6))
    ]
    for view, same, *pieces in zip(whole, again, *parts, strict=True):
        assert torch.equal(view, same)
        assert torch.equal(view, torch.cat(pieces))
    with torch.autocast('cpu', torch.bfloat16):
        assert all(torch.equal(x, y) for x, y in zip(finish(batch['inputs'], batch['drawn']), whole, strict=True))


def test_normalised_views_are_one_graph_for_the_compiler(monkeypatch):
    monkeypatch.setenv('MMKERNEL_COMPILE', '1')
    preprocessor, count = ViewPreprocessor(mean=[0.5] * 3, std=[0.2] * 3), CompileCounter()
    monkeypatch.setattr(module, '_compiled', lambda function: torch.compile(function, fullgraph=True, backend=count))
    _, device, preprocessor.finish = both_places(TWO)
    batch = collate_views([device[0, i] for i in range(3)])
    made = preprocessor(batch)['inputs']
    assert count.frame_count == 1
    monkeypatch.setenv('MMKERNEL_COMPILE', '0')
    assert all(torch.equal(view, plain) for view, plain in zip(made, preprocessor(batch)['inputs'], strict=True))


def test_views_of_one_shape_and_kind_go_together():
    first = dict(size=32, crop=CROP, ops=TAIL)
    likelier = dict(TAIL, flip=dict(type='RandomFlip', probability=0.9))
    upwards = dict(TAIL, flip=dict(type='RandomFlip', direction='vertical'))
    views = dict(
        a=dict(first, count=2), b=dict(first, ops=likelier), small=dict(first, size=16), up=dict(first, ops=upwards),
        plain=dict(first, ops=None),
    )  # fmt: skip
    data = ViewDataset(Scenes(), views, views_on='device')
    finish = data.place('cpu')
    assert finish.groups == [[0, 1, 2], [3], [4]]
    batch = collate_views([data[0, i] for i in range(4)])
    made = finish(batch['inputs'], batch['drawn'])
    assert made[5].dtype == torch.uint8
    assert torch.equal(made[5], batch['inputs'][5])
    assert not list(finish.parameters())
    assert not finish.state_dict()


def test_whole_images_and_crops_do_not_go_together():
    flip = dict(flip=dict(type='RandomFlip'))
    source = Scenes()
    source.read = lambda i: photograph(50, 70, seed=i)
    worker, device, finish = both_places(dict(whole=dict(ops=flip), cut=dict(size=224, crop=CROP, ops=flip)), source)
    batch, expected = (collate_views([data[0, i] for i in range(3)]) for data in (device, worker))
    made = finish(batch['inputs'], batch['drawn'])
    assert [tuple(view.shape[2:]) for view in made] == [(50, 70), (224, 224)]
    assert all(torch.equal(view, other.float()) for view, other in zip(made, expected['inputs'], strict=True))


def test_what_stays_in_the_worker():
    data = ViewDataset(Scenes(), MIXED)
    finish = data.place('cuda')
    names = [[type(step).__name__ for step in steps] for steps in finish.steps]
    assert names == [['ColorJitter', 'RandomGrayscale', 'GaussianBlur', 'Solarize', 'RandomFlip']] * 6 + [[]]
    late = dict(a=dict(size=32, crop=CROP, ops=dict(TAIL, affine=dict(type='RandomAffine'))))
    data = ViewDataset(Scenes(), late)
    assert data.place('cuda') is None
    assert 'drawn' not in data[0, 0]


def test_until_it_is_placed_a_data_set_finishes_its_views():
    worker, device, _ = both_places(TWO)
    unplaced, exact = ViewDataset(Scenes(), TWO, views_on='device'), ViewDataset(Scenes(), TWO, exact=True)
    assert exact.place('cuda') is None
    assert worker.place('cuda') is None
    assert_equal_streams(batches(worker), batches(unplaced))
    drawn, image = device.draw(0, 1, *device.source.image(1).shape[:2]), device.source.image(1)
    for whole, view in zip(device.make(image, drawn), worker[0, 1]['inputs'], strict=True):
        assert np.array_equal(whole, view.permute(1, 2, 0))
    copied = pickle.loads(pickle.dumps(device))  # to a spawned worker
    assert_equal_streams(batches(copied), batches(device))
    device.views_on = 'worker'
    assert device.place('cpu') is None
    assert_equal_streams(batches(device), batches(worker))


def test_exact_views_are_those_of_pillow():
    data, worker = ViewDataset(Scenes(), TWO, exact=True), ViewDataset(Scenes(), TWO)
    image = data.source.image(3)
    chains = [view.chain for view in data.views.values()]
    for chain, params, view in zip(chains, data.draw(0, 3, *image.shape[:2]), data[0, 3]['inputs'], strict=True):
        expected = image
        for step, drawn in zip(chain.steps, params[0], strict=True):
            expected = expected if drawn is None else step.exact(expected, drawn)
        assert np.array_equal(view.permute(1, 2, 0), expected)
    assert_close_pictures([v[None] for v in worker[0, 3]['inputs']], [v[None] for v in data[0, 3]['inputs']])


@TRANSFORMS.register_module(force=True)
class Mirrored(RandomFlip):
    """A subclass that changes ``apply`` alone: the device form of its parent is not its own."""

    def apply(self, image, params):
        return np.ascontiguousarray(image[::-1, ::-1])


@TRANSFORMS.register_module(force=True)
class Shifted(Operation):
    """Every value plus one of 0 .. 9, modulo 256, here and there."""

    floats = 1

    def sample(self, rng, height, width):
        return int(rng.integers(10))

    def apply(self, image, params):
        return image + np.uint8(params)

    def encode(self, params):
        return (params,)

    def on_device(self, images, params):
        return (images + params[:, :, None, None]) % 256


@TRANSFORMS.register_module(force=True)
class Halved(Shifted):
    """Changes the size of an image: only one of all of a batch could have it."""

    def size_after(self, height, width):
        return height // 2, width // 2


@TRANSFORMS.register_module(force=True)
class Miscounted(Shifted):
    floats = 2


def test_what_encode_gives_is_as_long_as_floats():
    data = ViewDataset(Scenes(), dict(a=dict(size=16, crop=CROP, ops=dict(shift=dict(type='Miscounted')))))
    data.place('cuda')
    with pytest.raises(ValueError, match='Miscounted.encode gave 1 numbers, Miscounted.floats says 2'):
        data[0, 0]


def test_the_list_of_device_forms_holds_no_class_that_lacks_one():
    assert {'ColorJitter', 'GaussianBlur', 'RandomFlip', 'RandomGrayscale', 'Shifted', 'Solarize'} <= {*device_forms()}
    assert not {'Mirrored', 'Halved', 'RandomResizedCrop', 'CenterView', 'Sobel'} & {*device_forms()}


def test_an_operation_of_ones_own():
    only = dict(a=dict(size=16, crop=CROP, ops=dict(shift=dict(type='Shifted'))))
    worker, device, finish = both_places(only)
    batch, expected = (collate_views([data[0, i] for i in range(5)]) for data in (device, worker))
    assert torch.equal(finish(batch['inputs'], batch['drawn'])[0], expected['inputs'][0].float())
    changed = ViewDataset(Scenes(), dict(a=dict(size=16, crop=CROP, ops=dict(turn=dict(type='Mirrored')))))
    assert changed.place('cuda') is None


@pytest.mark.parametrize(
    'options, words',
    [
        (dict(views_on='gpu'), "views_on is one of 'auto', 'device', 'worker', got 'gpu'"),
        (dict(exact='yes'), "exact is True or False, got 'yes'"),
        (dict(views_on='device', exact=True), "exact=True makes views by Pillow in the workers.*views_on=worker, or exact=False"),
        (
            dict(views_on='device', views=MIXED),
            "view 'both': RandomAffine cannot run on the device.*ColorJitter, GaussianBlur.* can. Use views_on='auto'",
        ),
        (
            dict(views_on='device', views=dict(a=dict(ops=dict(turn=dict(type='Mirrored'))))),
            "view 'a': Mirrored cannot run on the device",
        ),
        (
            dict(views_on='device', views=dict(a=dict(ops=dict(half=dict(type='Halved'))))),
            "view 'a': Halved cannot run on the device",
        ),
    ],
)  # fmt: skip
def test_errors(options, words):
    with pytest.raises(ValueError, match=words):
        ViewDataset(Scenes(), **dict(dict(views=TWO), **options))


def test_patches_may_have_a_parent_of_the_worker():
    views = dict(patches=dict(PATCHES, ops=TAIL))
    worker, device, finish = both_places(views)
    batch, expected = (collate_views([data[0, i] for i in range(5)]) for data in (device, worker))
    assert_close_pictures(finish(batch['inputs'], batch['drawn']), expected['inputs'])


def test_a_batch_of_another_data_set():
    _, _, finish = both_places(TWO)
    _, other, _ = both_places(dict(a=dict(size=16, crop=CROP, ops=dict(flip=dict(type='RandomFlip')))))
    batch = collate_views([other[0, 0]])
    with pytest.raises(
        ValueError, match=r'1 views with \[1\] drawn numbers.*views with \[14, 14\]: it comes from another data set'
    ):
        finish(batch['inputs'], batch['drawn'])


def test_batches_are_stacked_in_the_order_of_memory():
    data = ViewDataset(Scenes(), MIXED)
    data.place('cuda')
    items = [data[0, i] for i in range(4)]
    ours, theirs = collate_views(items), default_collate(items)
    assert ours.keys() == theirs.keys()
    for key in ('inputs', 'drawn'):
        assert all(torch.equal(x, y) for x, y in zip(ours[key], theirs[key], strict=True))
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in ours['inputs'])
    assert all(torch.equal(ours[key], theirs[key]) for key in ('sample_index', 'label'))


def test_items_of_other_data_sets_are_collated_as_ever():
    rows = [dict(inputs=[torch.rand(3, 4, 5), torch.ones(2)], name=f'{i}') for i in range(3)]
    ours, theirs = collate_views(rows), default_collate(rows)
    assert ours['name'] == theirs['name']
    assert all(torch.equal(x, y) and x.is_contiguous() for x, y in zip(ours['inputs'], theirs['inputs'], strict=True))
    first = [dict(inputs=[torch.randint(0, 9, (3, 4, 5), dtype=torch.uint8)]) for _ in range(3)]
    assert collate_views(first)['inputs'][0].is_contiguous()  # (C, H, W) in memory, as they came
    assert torch.equal(collate_views([torch.ones(2), torch.zeros(2)]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


def test_an_item_never_shares_memory_with_its_source():
    source, kept = Scenes(2), {}
    source.read = lambda i: kept.setdefault(i, np.full((8, 8, 3), 7, np.uint8))
    data = ViewDataset(source, dict(whole=dict(count=2)))
    one, two = data[0, 0]['inputs']
    one.zero_()
    assert kept[0].min() == 7
    assert int(two.min()) == 7
