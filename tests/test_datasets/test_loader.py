import mmengine.dataset  # noqa: F401  registers mmengine's own samplers
import numpy as np
import pytest
from mmengine.registry import DATA_SAMPLERS as ROOT

import mmkernel.datasets.loader as module
from mmkernel.datasets import BalancedSampler, EpochSampler, build_dataloader, part_of_epoch
from mmkernel.registry import DATA_SAMPLERS


@pytest.fixture
def ranks(monkeypatch):
    """The samplers of all ranks of a job of ``world`` processes."""

    def make(world, images, **options):
        samplers = []
        for rank in range(world):
            monkeypatch.setattr(module, 'get_dist_info', lambda r=rank: (r, world))
            samplers.append(EpochSampler(range(images), **options))
        return samplers

    return make


def test_pairs_of_epoch_and_index():
    sampler = EpochSampler(range(10), seed=3)
    sampler.set_epoch(4)
    pairs = list(sampler)
    assert {e for e, _ in pairs} == {4}
    assert sorted(i for _, i in pairs) == list(range(10))
    assert all(type(i) is int for _, i in pairs)
    assert list(sampler) == pairs
    assert len(sampler) == 10


def test_a_long_order_comes_in_pieces(monkeypatch):
    sampler = EpochSampler(range(10), seed=3)
    whole = list(sampler)
    for size in (1, 3, 10, 11):
        monkeypatch.setattr(module, '_AT_ONCE', size)
        assert list(sampler) == whole


def test_orders_differ_by_epoch_and_seed_and_never_coincide():
    orders = set()
    for seed in range(3):
        sampler = EpochSampler(range(50), seed=seed)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            orders.add(tuple(i for _, i in sampler))
    assert len(orders) == 9  # torch's and mmengine's seed + epoch would give 5


def test_without_shuffling():
    assert list(EpochSampler(range(4), shuffle=False)) == [(0, 0), (0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize('world, images', [(2, 10), (4, 10), (3, 9), (4, 1)])
def test_ranks_share_one_permutation(ranks, world, images):
    single = [i for _, i in EpochSampler(range(images), seed=5)]
    samplers = ranks(world, images, seed=5)
    parts = [[i for _, i in sampler] for sampler in samplers]
    assert {len(p) for p in parts} == {len(s) for s in samplers} == {-(-images // world)}
    together = np.array(parts).T.ravel().tolist()
    assert together[:images] == single
    assert together == (single * world)[: len(together)]


def test_without_rounding_up_nothing_repeats(ranks):
    samplers = ranks(4, 10, seed=5, round_up=False)
    parts = [[i for _, i in sampler] for sampler in samplers]
    assert [len(p) for p in parts] == [len(s) for s in samplers] == [3, 3, 2, 2]
    assert sorted(sum(parts, [])) == list(range(10))


@pytest.mark.parametrize('world', [1, 2])
def test_part_of_an_epoch_is_another_part_in_every_epoch(ranks, world):
    samplers, seen = ranks(world, 40, seed=5, num_samples=6), set()
    for epoch in range(30):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        parts = [[i for _, i in sampler] for sampler in samplers]
        assert [len(p) for p in parts] == [len(s) for s in samplers] == [6] * world
        assert len(set(sum(parts, []))) == 6 * world
        seen |= set(sum(parts, []))
    assert seen == set(range(40))


def test_a_dataloader_asks_for_a_part():
    loader = dict(batch_size=4, num_batch_per_epoch=3, sampler=dict(type='EpochSampler', shuffle=True))
    assert part_of_epoch(loader) == dict(batch_size=4, sampler=dict(type='EpochSampler', shuffle=True, num_samples=12))
    foreign = dict(loader, sampler=dict(type='DefaultSampler'))
    assert part_of_epoch(foreign) == foreign
    with pytest.raises(
        ValueError, match='12 images of an epoch for each of 1 process.*a data set of 10: lower num_batch'
    ):
        EpochSampler(range(10), num_samples=12)


def test_functions_of_ours_and_of_mmengine_are_found():
    given = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    for name in ('collate_views', 'default_collate'):
        loader = build_dataloader(dict(given, dataset=range(4), collate_fn=dict(type=name)))
        assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3]]
    with pytest.raises(KeyError, match="'collate_view' is not registered.*collate_views"):
        build_dataloader(dict(given, dataset=range(4), collate_fn=dict(type='collate_view')))


def test_empty_dataset():
    with pytest.raises(ValueError, match='list is empty'):
        EpochSampler([])


def test_built_as_the_runner_does():
    sampler = DATA_SAMPLERS.build(dict(type='EpochSampler', shuffle=True), default_args=dict(dataset=range(3), seed=8))
    assert sampler.seed == 8
    assert EpochSampler(range(3), seed=None).seed >= 0
    assert 'DefaultSampler' in ROOT.module_dict


def test_order_is_pinned():
    assert [i for _, i in EpochSampler(range(8), seed=0)] == PINNED


PINNED = [5, 3, 7, 2, 4, 1, 0, 6]


def test_balanced_sampler_draws_every_label_equally_often():
    sampler = BalancedSampler(range(100), seed=1)
    assert sorted(sampler.order()) == list(range(100))  # no labels yet: every image once
    labels = np.array([0] * 80 + [3] * 12 + [7] * 3 + [-100] * 5)
    sampler.set_labels(labels)
    sampler.set_epoch(2)
    order = sampler.order()
    assert len(order) == len(sampler) == 100
    assert {int(k): int(n) for k, n in zip(*np.unique(labels[order], return_counts=True), strict=True)}.keys() == {
        0,
        3,
        7,
    }
    counts = np.bincount(labels[order], minlength=8)[[0, 3, 7]]
    assert counts.max() - counts.min() <= 2
    large = order[labels[order] == 0]
    assert len(set(large.tolist())) == len(large)  # enough images: none twice
    assert list(sampler) == [(2, i) for i in order.tolist()]
    again = BalancedSampler(range(100), seed=1)
    again.set_labels(labels)
    again.set_epoch(2)
    assert np.array_equal(again.order(), order)
    again.set_epoch(3)
    assert not np.array_equal(again.order(), order)


@pytest.mark.parametrize('labels', [[0, 1], [-1, -100, -1]])
def test_balanced_sampler_wants_labels_of_all_images(labels):
    with pytest.raises(ValueError, match='Expected 3 labels, not all of them negative'):
        BalancedSampler(range(3)).set_labels(np.array(labels))
