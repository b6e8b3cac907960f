"""What a source promises is tried on a few images before a run; what breaks it is named."""

import os

import numpy as np
import pytest
import torch
from multiprocess import run_processes
from test_datasets.test_sources import PIXELS, PLAIN, Mine

from mmkernel.datasets import EvaluationDataset, Source, ViewDataset
from mmkernel.datasets.sample_checks import check_samples


@pytest.mark.parametrize('workers', [0, 2])
def test_a_right_source_is_described(workers):
    assert check_samples(ViewDataset(Mine(), PLAIN), 3, workers) == '5 images tried: 10 x 12 px, 3 channel(s)'
    assert check_samples(EvaluationDataset(Mine(count=2)), None, workers) == '2 images tried: 10 x 12 px, 3 channel(s)'


def test_first_last_and_some_between_are_read():
    class Asked(Mine):
        def read(self, i):
            asked.add(i)
            return super().read(i)

    asked = set()
    check_samples(EvaluationDataset(Asked(count=101)))
    assert asked == {0, 25, 50, 75, 100}


WRONG = {
    'float': (dict(image=PIXELS / np.float32(255)), 3, r'Mine\.read\(0\), photo-0\.png, gave float32.*255 \* image'),
    'sixteen bits': (dict(image=PIXELS.astype(np.uint16)), 3, 'gave uint16'),
    'channels first': (dict(image=np.zeros((3, 32, 32), np.uint8)), 3, r'transpose\(1, 2, 0\)'),
    'grey': (dict(image=PIXELS[..., :1]), 3, r'photo-0\.png has 1 channel\(s\); the model takes 3\. Set model\.backbone'),
    'last': (dict(broken=(5,)), 3, r'photo-5\.png cannot be decoded'),
}  # fmt: skip


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('given, channels, message', WRONG.values(), ids=WRONG)
def test_what_breaks_the_contract_is_named(given, channels, message, workers):
    for dataset in (ViewDataset(Mine(**given), PLAIN), EvaluationDataset(Mine(**given))):
        with pytest.raises(ValueError, match=f'(?s){message}'):
            check_samples(dataset, channels, workers)


def refusal(rank, world_size, workers):
    """What this rank says of a source with two damaged images."""
    try:
        check_samples(ViewDataset(Mine(count=101, broken=(50, 100)), PLAIN), 3, workers)
    except ValueError as error:
        return f'{error}'


@pytest.mark.parametrize('workers', [0, 1])
def test_all_ranks_refuse_the_same_image(workers):
    first, second = run_processes(refusal, 2, workers)
    assert first == second == 'photo-50.png cannot be decoded.'


def test_images_of_two_kinds_in_one_set():
    class Mixed(Mine):
        def read(self, i):
            return PIXELS if i < 3 else PIXELS[..., :1]

    with pytest.raises(ValueError, match=r'photo-4\.png has 1 channel\(s\); photo-0\.png has 3, and a batch'):
        check_samples(EvaluationDataset(Mixed()))


def test_a_substitute_is_no_breach():
    with pytest.warns(UserWarning, match='Using photo-1'):
        assert check_samples(EvaluationDataset(Mine(broken=(0,), on_corrupt='skip')), 3).startswith('5 images')


class Odd(Mine):
    """``what`` goes wrong."""

    def __init__(self, what):
        self.what = what
        super().__init__()

    def name(self, i):
        if self.what == 'no name':
            raise KeyError(i)
        return {'number': i, 'empty': ''}.get(self.what, f'photo-{i}.png')

    def read(self, i):
        if self.what == 'any error':
            raise ZeroDivisionError('of my own')
        return super().read(i)


@pytest.mark.parametrize(
    'what, message',
    [
        ('number', r'Odd\.name\(0\) gave 0; expected a path or another name'),
        ('empty', r"Odd\.name\(0\) gave ''"),
        ('no name', r'Odd\.name\(0\): KeyError: 0'),
        ('any error', r'Odd\.read\(0\), photo-0\.png: ZeroDivisionError: of my own'),
    ],
)
@pytest.mark.parametrize('workers', [0, 1])
def test_names_and_errors_of_a_class_of_ones_own(what, message, workers):
    with pytest.raises(ValueError, match=message):
        check_samples(EvaluationDataset(Odd(what)), None, workers)


def test_views_that_fail_say_of_which_image():
    whole = dict(a=dict(parent=dict(), size=20, count=1))
    with pytest.raises(
        ValueError, match=r'the views of photo-0\.png \(10 x 12 px, 3 channel\(s\)\): ValueError: patches'
    ):
        check_samples(ViewDataset(Mine(), whole))


def test_what_a_source_opens_stays_closed_where_a_run_has_workers():
    class Opens(Mine):
        def _open(self):
            return os.getpid()

        def read(self, i):
            return np.full((4, 4, 3), self.arrays % 256, np.uint8)

    source = Opens()
    check_samples(EvaluationDataset(source), 3, workers=1)
    assert source._arrays is None


def test_no_draw_of_the_run_moves():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    check_samples(ViewDataset(Mine(), PLAIN), 3, workers=1)
    check_samples(ViewDataset(Mine(), PLAIN), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_other_data_sets_are_left_alone():
    assert check_samples([1, 2, 3]) == ''

    class Empty(Source):
        def __init__(self):
            super().__init__()
            self.labels = []

    assert check_samples(EvaluationDataset(Empty())) == ''
