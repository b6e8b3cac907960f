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


WORDS = {
    'list': ['dog', 'cat', 'dog', 'ant'],
    'tuple': ('dog', 'cat', 'dog', 'ant'),
    'array': np.array(['dog', 'cat', 'dog', 'ant']),
    'objects': np.array(['dog', 'cat', 'dog', 'ant'], object),
}


@pytest.mark.parametrize('words', WORDS.values(), ids=WORDS)
def test_words_are_numbered_in_sorted_order(words):
    source = Mine(classes=[], labels=words)
    assert source.labels.tolist() == [2, 1, 2, 0]
    assert source.labels.dtype == np.int64
    assert source.classes == ['ant', 'cat', 'dog']
    part = Subset(source, per_class=1)  # the names travel
    assert part.classes == source.classes
    assert len(EvaluationDataset(source)) == 4


def test_words_follow_the_classes_that_are_given_and_none_is_no_label():
    source = Mine(classes=['dog', 'cow', 'cat'], labels=['cat', None, 'dog'])
    assert source.labels.tolist() == [2, -1, 0]
    assert Mine(classes=[], labels=[None, 'b', 'a']).labels.tolist() == [-1, 1, 0]


BAD_WORDS = {
    'unknown': (
        ['cat', 'dgo'],
        ['cat', 'dog'],
        r"photo-1\.png \(record 1\): 'dgo'; expected one of the 2 classes \(cat, dog",
    ),
    'empty': (['cat', ''], [], r"record 1\): ''; expected a word as the others, or None"),
    'a number between': (['cat', 3], [], r'record 1\): 3; expected a word'),
    'a fraction between': (['cat', 0.5, 'cat'], [], r'record 1\): 0\.5; expected a word'),
    'missing in a table': (np.array(['cat', np.nan], object), [], r'record 1\): nan; expected a word.*or None'),
    'two of one name': (['cat', 'dog'], ['cat', 'cat', 'dog'], 'a name stands twice in classes'),
    'one-hot': (
        [[0, 1], [1, 0]],
        [],
        r'shape \(2, 2\); expected \(N,\).*That of photo-0\.png is \[0, 1\].*labels\.argmax\(1\)',
    ),
    'soft': ([[0.3, 0.7], [1, 0]], [], r'labels\.argmax\(1\)'),
    'a part': ([0, 0.5], [], r'record 1\): 0\.5.*the number of the likeliest'),
    'truth': ([True, False], [], r'labels\.astype\(int\)'),
    'unequal': ([0, [1, 2]], [], r'record 1\): .*expected one class of each image.*targets'),
    'bytes': (np.array([b'cat', b'dog']), [], r"record 0\).*b'cat'; expected a whole number"),
}


@pytest.mark.parametrize('labels, classes, message', BAD_WORDS.values(), ids=BAD_WORDS)
def test_a_label_that_is_none_is_named_with_the_way_out(labels, classes, message):
    with pytest.raises(ValueError, match=f'(?s){message}'):
        Mine(classes=classes, labels=labels)


def test_classes_set_after_words_would_rename_them():
    source = Mine(classes=[], labels=['dog', 'cat'])
    source.classes = ['dog', 'cat']
    with pytest.raises(ValueError, match=r"numbered by \['cat', 'dog'\], but classes was set to \['dog', 'cat'\]"):
        EvaluationDataset(source)


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


def pack(path, labels, **more):
    np.savez(path, train_jpeg=np.zeros(4, np.uint8), train_off=np.array([0, 2, 4]), train_label=labels, **more)


def test_words_of_a_pack_become_numbers(tmp_path):
    pack(tmp_path / 'p.npz', np.array(['b', 'a']))
    source = NpzPack(str(tmp_path / 'p.npz'))
    assert (source.labels.tolist(), source.classes) == ([1, 0], ['a', 'b'])
    pack(tmp_path / 'q.npz', np.array(['b', 'a']), classes=np.array(['b', 'z', 'a']))
    assert NpzPack(str(tmp_path / 'q.npz')).labels.tolist() == [0, 2]


@pytest.mark.parametrize('labels', [np.array([0.5, 1]), np.array([True, False]), np.array([0, -3])])
def test_a_pack(tmp_path, labels):
    pack(tmp_path / 'p.npz', labels)
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
