"""One stratified draw behind every benchmark: the rows are those of each published or earlier recipe, written out."""

import numpy as np
import pytest
import torch

from mmkernel.datasets import Source, Subset
from mmkernel.datasets.draws import SUBSET, draw_per_class, generator, smallest_keys
from mmkernel.evaluation import draw_labelled, split_rows
from mmkernel.evaluation.transfer_tasks import _held_out

LABELS = np.random.default_rng(0).integers(0, 4, 97)
MEMBERS = {label: np.flatnonzero(LABELS == label) for label in range(4)}


class Labelled(Source):
    """Labels without images."""

    def __init__(self):
        super().__init__()
        self.labels, self.classes = LABELS, ['a', 'b', 'c', 'd']


def test_few_labels():
    rng = np.random.default_rng((7, 3, 2))
    expected = np.concatenate([rng.choice(members, 3, replace=False) for members in MEMBERS.values()])
    assert draw_labelled(torch.from_numpy(LABELS), 3, draw=2, seed=7).tolist() == expected.tolist()


def test_held_out_rows_of_a_sweep():
    rng = np.random.default_rng((5, len(LABELS)))
    expected = [rng.permutation(members)[: round(0.3 * len(members))] for members in MEMBERS.values()]
    fit, choose = split_rows(LABELS, 0.3, 5)
    assert choose.tolist() == np.sort(np.concatenate(expected)).tolist()
    assert fit.tolist() == np.setdiff1d(np.arange(len(LABELS)), choose).tolist()


def test_validation_images_of_a_transfer():
    keys = np.random.default_rng(3).random(len(LABELS))
    expected = [m[keys[m].argsort(kind='stable')[: round(0.2 * len(m))]] for m in MEMBERS.values()]
    assert _held_out(torch.from_numpy(LABELS), 3).nonzero()[:, 0].tolist() == np.sort(np.concatenate(expected)).tolist()


def test_subsets_are_nested():
    for amount in (2, 9):
        order = {k: generator(6, 0, k + 1, purpose=SUBSET).random(len(m)).argsort() for k, m in MEMBERS.items()}
        expected = np.concatenate([MEMBERS[k][order[k][:amount]] for k in MEMBERS])
        assert Subset(Labelled(), per_class=amount, seed=6).rows.tolist() == np.sort(expected).tolist()


def test_a_class_that_is_too_small_is_named():
    def first(label, members, k):
        return members[:k]

    assert draw_per_class(np.array([1, 0, 1, 1]), lambda label, n: n - label, first).tolist() == [1, 0, 2]
    assert draw_per_class(np.array([], int), lambda label, n: n, first).tolist() == []
    with pytest.raises(ValueError, match=r'class 0 has 1 images; 2 per class were asked for\.'):
        draw_per_class(np.array([1, 0, 1, 1]), lambda label, n: 2, first)
    few, more = (smallest_keys(np.random.default_rng(1), np.arange(20), k) for k in (3, 8))
    assert more[:3].tolist() == few.tolist()
