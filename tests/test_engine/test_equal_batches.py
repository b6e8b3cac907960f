"""No step mixes batches of unequal size, and with our samplers no process asks another for it."""

import os
from pathlib import Path

import pytest
import torch
from multiprocess import run_processes
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mmkernel import distributed
from mmkernel.datasets import BalancedSampler, EpochSampler
from mmkernel.engine import load_config, train
from mmkernel.engine.loop import EqualBatches, rows_of
from mmkernel.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class MoreOfEachRank(Sampler):
    """A sampler of somebody's own: rank r has ``more`` * r samples more than rank 0."""

    def __init__(self, dataset, more, seed=0):
        self.count = 11 + more * distributed.rank()

    def __iter__(self):
        return ((0, i) for i in range(self.count))

    def __len__(self):
        return self.count


def loader_of(images, sampler=EpochSampler, batch=4, rank=0, ranks=1, drop_last=False, **options):
    sampler = sampler(range(images), **options)
    if isinstance(sampler, EpochSampler):
        sampler.rank, sampler.world_size = rank, ranks
    return DataLoader(range(images), batch, sampler=sampler, drop_last=drop_last)


@pytest.mark.parametrize(
    'images, ranks, options, equal',
    [
        (9, 2, dict(round_up=False), False),
        (8, 2, dict(round_up=False), True),
        (9, 2, dict(), True),
        (9, 2, dict(round_up=False, num_samples=3), True),
        (11, 2, dict(round_up=False, drop_last=True), True),  # 5 and 6: one batch of 4 each
        (15, 2, dict(round_up=False, drop_last=True), False),  # 7 and 8
        (9, 2, dict(sampler=BalancedSampler), True),
    ],
)
def test_what_a_loader_of_ours_will_give(images, ranks, options, equal):
    loaders = [loader_of(images, rank=r, ranks=ranks, **options) for r in range(ranks)]
    equals = [EqualBatches(loader) for loader in loaders]
    plans = [each.plan for each in equals]
    assert all(each.fixed for each in equals)
    sizes = [[len(rows) for rows in loader.batch_sampler] for loader in loaders]
    assert plans == [(len(rows), rows[-1] % 4) for rows in sizes]
    assert (len(set(plans)) == 1) == equal


def test_what_only_the_batches_can_tell():
    data = range(9)
    assert not EqualBatches(loader_of(9, MoreOfEachRank, more=1)).fixed
    assert not EqualBatches(DataLoader(data, 4, sampler=EpochSampler(data), collate_fn=torch.tensor)).fixed

    class Own(BatchSampler):
        pass

    assert not EqualBatches(DataLoader(data, batch_sampler=Own(EpochSampler(data), 4, False))).fixed
    batch = dict(sample_index=torch.arange(3))
    assert rows_of(batch) == 3
    assert rows_of(dict(label=[1, 2])) == 2
    assert rows_of([batch, batch]) == 6
    assert rows_of(dict(inputs=[torch.zeros(3)])) is rows_of([torch.zeros(3)]) is None


def on_rank(rank, world_size, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    said, asked = [], []
    ask = distributed.bounds_over_ranks
    distributed.bounds_over_ranks = lambda *numbers: asked.append(numbers) or ask(*numbers)

    def exchanges(sampler, **options):
        """How often hosts ask each other in the steps of an epoch, each with two gathers."""
        loader = loader_of(11, sampler, rank=rank, ranks=world_size, **options)
        equal = EqualBatches(loader)
        asked.clear()
        for keys in loader.batch_sampler:
            rows = torch.zeros(len(keys), 2)
            with equal(dict(sample_index=rows)):
                distributed.gather_rows(distributed.gather_rows(rows)[: len(rows)])
        return len(asked)

    def error(function, *args, **kwargs):
        try:
            function(*args, **kwargs)
        except ValueError as found:
            return str(found)
        return 'no error'

    counts = [exchanges(EpochSampler), exchanges(MoreOfEachRank, more=0)]
    asked.clear()
    distributed.gather_rows(torch.zeros(2, 2))  # outside of any step
    counts.append(len(asked))
    said.append(error(EqualBatches, loader_of(11, round_up=False, rank=rank, ranks=world_size)))
    said.append(error(EqualBatches, loader_of(11 + 8 * rank, rank=rank, ranks=world_size)))  # another copy of the data
    for more in (1, 0, 6):
        cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'train_cfg.max_epochs': 1, 'launcher': 'pytorch'})
        cfg.work_dir = str(folder / str(more))
        cfg.train_dataloader.drop_last = False
        cfg.train_dataloader.sampler = dict(type='MoreOfEachRank', more=more)
        cfg.param_scheduler.warmup_epochs = 0
        said.append(error(train, cfg))
    return counts, said


def test_two_processes(tmp_path):
    for counts, said in run_processes(on_rank, 2, tmp_path, timeout=300):
        assert counts == [0, 3, 1]
        assert 'from 2 to 2 batches on the 2 processes, and a shorter last one of 1 to 2 images' in said[0]
        assert 'round_up=True' in said[0]
        assert 'from 2 to 3 batches' in said[1]
        assert 'that every machine has the same images' in said[1]
        assert said[2].startswith('Local batches differ between ranks: from 3 to 4 rows')
        assert said[3] == 'no error'
        assert 'from 2 to 3 batches on the 2 processes' in said[4]  # the one with more would wait for the other
