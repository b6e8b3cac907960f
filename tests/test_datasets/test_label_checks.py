"""Labels that are no whole numbers are refused with the record, wherever they come from."""

import numpy as np
import pytest
import torch
from test_datasets.test_sources import PLAIN, Mine

from mmkernel.datasets import EvaluationDataset, NpzPack, Source, Subset, ViewDataset
from mmkernel.datasets.draws import rows_by_label
from mmkernel.datasets.folders import FileSource

WRONG = {
    'half': ([0, 1, 0.5], r'photo-2\.png \(record 2\): 0\.5'),
    'NaN': ([0, np.nan, 1], r'photo-1\.png \(record 1\): nan'),
    'infinite': ([0, 1, np.inf], 'record 2'),
    'negative': ([0, -2, 1], r'record 1\): -2'),
    'truth': ([True, False, True], 'record 0.*and those of 2 more: True'),
    'words': (['cat', 'dog', 'cat'], "record 0.*'cat'"),
    'nothing': ([0, None, 1], r'record 1\): None'),
    'far': ([0, 1, 2**40], 'record 2'),
    'pairs': ([[0, 1], [1, 0], [0, 0]], r'shape \(3, 2\)'),
    'complex': ([0, 1j, 1], 'record 0'),
}


@pytest.mark.parametrize('labels, message', WRONG.values(), ids=WRONG)
def test_labels_that_are_none(labels, message):
    with pytest.raises(ValueError, match=f'(?s){message}.*Number the classes|{message}'):
        Mine(labels=labels)
    with pytest.raises(ValueError, match=r'Mine: (the label|labels)'):
        Mine(labels=np.asarray(labels))


@pytest.mark.parametrize(
    'labels',
    [
        [0, 1, -1],
        np.array([0, 1, -1], np.int8),
        np.array([0.0, 1.0, -1.0]),
        np.array([0, 1, -1], object),
        torch.tensor([0, 1, -1]),
    ],
)
def test_whole_numbers_of_any_type(labels):
    source = Mine(labels=labels)
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0, 1, -1]
    assert source.label(2) == -1


def test_labels_fit_the_classes_and_the_images():
    for build in (EvaluationDataset, lambda s: ViewDataset(s, PLAIN), lambda s: Subset(s, fraction=1.0)):
        with pytest.raises(
            ValueError, match=r'photo-1\.png \(record 1\): 2; expected -1 to 1, since there are 2 classes'
        ):
            build(Mine(labels=[0, 2, 1], classes=['a', 'b']))
    assert len(EvaluationDataset(Mine(labels=[0, 2, 1], classes=[]))) == 3  # nobody named them
    with pytest.raises(ValueError, match='3 files in .*, but 2 labels'):
        FileSource('folder', ['a', 'b', 'c'], [0, 1], 'RGB', 'raise')
    with pytest.raises(AttributeError, match='Source has no labels: set self'):
        len(Source())


@pytest.mark.parametrize(
    'targets, message',
    [
        ([[1, 0.5], [0, 0]], 'record 0'),
        ([[1, 0], [0, 2]], 'record 1'),
        ([[1, 0], [0, np.nan]], 'record 1'),
        ([1, 0], r'shape \(2,\)'),
        ([[1, 0, 0], [0, 1, 1]], r'shape \(2, 3\); expected \(2, 2\)'),
        ([[1, 0]], r'shape \(1, 2\); expected \(2, 2\)'),
    ],
)
def test_targets_that_are_none(targets, message):
    with pytest.raises(ValueError, match=message):
        EvaluationDataset(Mine(labels=[-1, -1], classes=['a', 'b'], targets=targets))


def test_targets_of_truth_values():
    source = Mine(labels=[-1, -1], classes=['a', 'b'], targets=[[True, False], [True, True]])
    assert source.targets.tolist() == [[1, 0], [1, 1]]


def test_targets_of_any_whole_type():
    source = Mine(labels=[-1, -1], classes=['a', 'b'], targets=[[1.0, 0.0], [-1.0, 1.0]])
    assert EvaluationDataset(source)[1]['targets'].tolist() == [-1, 1]
    assert source.targets.dtype == np.int8


@pytest.mark.parametrize(
    'labels', [np.array([0.5, 1]), np.array(['a', 'b']), np.array([True, False]), np.array([0, -3])]
)
def test_a_pack(tmp_path, labels):
    np.savez(tmp_path / 'p.npz', train_jpeg=np.zeros(4, np.uint8), train_off=np.array([0, 2, 4]), train_label=labels)
    with pytest.raises(ValueError, match=r'NpzPack: the label of record \d of .*p\.npz'):
        NpzPack(str(tmp_path / 'p.npz'))


def test_rows_by_label():
    labels = np.array([3, -1, 0, 3, 0, 7])
    found = rows_by_label(labels)
    assert {label: rows.tolist() for label, rows in found.items()} == {-1: [1], 0: [2, 4], 3: [0, 3], 7: [5]}
    assert list(found) == [-1, 0, 3, 7]
    assert rows_by_label(labels[:0]) == {}


def test_labels_of_the_class_are_looked_at_too():
    class Given(Source):
        labels = property(lambda self: [0, 1, 0.5])

        def read(self, i):
            return np.zeros((4, 4, 1), np.uint8)

    with pytest.raises(ValueError, match='label of record 2'):
        EvaluationDataset(Given())
