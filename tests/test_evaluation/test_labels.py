"""Two labelled sources are compared by the names of their classes, wherever they meet."""

import copy
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from mmkernel.evaluation import (
    few_label_scores,
    linear_probe,
    linear_sweep,
    logistic_regression,
    low_shot_svm,
    mlp_probe,
    raw_pixels,
    transfer,
    voc_svm,
    weighted_knn,
)
from mmkernel.evaluation.labels import Labels, aligned, labels_of, renumber

COLOUR = dict(a=(220, 20, 20), b=(20, 220, 20), c=(20, 20, 220))


def folder(root, **counts):
    """Images of one colour per class, which any benchmark gets right."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((4, 4, 3), COLOUR.get(name, (90, 90, 90)), np.uint8)
            Image.fromarray(image + np.uint8(i)).save(root / name / f'{i}.png')
    return dict(type='ImageFolder', root=str(root), labels=True)


SCORES = dict(
    knn=lambda *data: weighted_knn(*data, k=3)[3]['top1'],
    probe=lambda *data: linear_probe(*data, epochs=60, batch_size=4, scaling='standard')['top1'],
    lbfgs=lambda *data: logistic_regression(*data, scaling='standard')['top1'],
    sweep=lambda *data: linear_sweep(*data, lrs=(0.1, 1.0), weight_decays=(0.0,), epochs=20, seeds=(0,))['top1'],
    few=lambda *data: few_label_scores(*data, shots=(1,), draws=1)['knn']['all']['mean'],
    mlp=lambda *data: mlp_probe(*data, hidden=16, epochs=40)['top1'],
    transfer=lambda *data: transfer(*data, penalties=(1e-3, 1.0), scaling='standard')['score'],
)


@pytest.fixture(scope='module')
def train(tmp_path_factory):
    return raw_pixels(folder(tmp_path_factory.mktemp('train'), a=8, b=8, c=8), num_workers=0)


@pytest.mark.parametrize('score', SCORES.values(), ids=SCORES)
@pytest.mark.parametrize('test', [dict(a=4, c=4), dict(b=3, c=2), dict(c=3)], ids='-'.join)
def test_a_class_without_test_images_shifts_no_other(train, test, score, tmp_path):
    with pytest.warns(UserWarning, match='no test image of . of the 3 classes'):
        assert score(*train, *raw_pixels(folder(tmp_path, **test), num_workers=0)) == 100


@pytest.mark.parametrize('score', SCORES.values(), ids=SCORES)
@pytest.mark.parametrize('test', [dict(a=2, b=2, c=2, d=2), dict(a=2, B=2)], ids='-'.join)
def test_classes_that_training_does_not_name_are_refused_with_both_lists(train, test, score, tmp_path):
    data = raw_pixels(folder(tmp_path, **test), num_workers=0)
    with pytest.raises(ValueError, match=rf'training \(3\): a, b, c; test \({len(test)}\): {", ".join(sorted(test))}'):
        score(*train, *data)


def test_features_of_a_cache_know_their_classes(train, tmp_path):
    source = folder(tmp_path / 'images', a=4, b=0, c=4)
    for _ in range(2):
        with pytest.warns(UserWarning, match='no test image'):
            assert SCORES['knn'](*train, *raw_pixels(source, num_workers=0, cache=tmp_path / 'cache')) == 100


def test_lists_in_another_order_are_one_set():
    y, z = aligned(Labels([0, 1, 2], 'abc'), Labels([0, 1, 2, -1], 'cab'))
    assert z.tolist() == [2, 0, 1, -1]
    assert (type(y), type(z)) == (torch.Tensor, torch.Tensor)
    targets = torch.tensor([[1, 0, -1], [0, 1, 0]])
    y, z = aligned(Labels(targets, 'abc'), Labels(targets, 'cab'))
    assert z.tolist() == [[0, -1, 1], [1, 0, 0]]


def test_columns_of_a_class_that_no_test_image_shows():
    test = Labels([[1, 0, -1], [1, 1, 0]], 'bcx')  # x is difficult only, in one image
    assert aligned(Labels([[1, 1, 0]], 'abc'), test)[1].tolist() == [[0, 1, 0], [0, 1, 1]]
    with pytest.raises(ValueError, match='x is not among those of the training'):
        aligned(Labels([[1, 1, 0]], 'abc'), Labels([[1, 0, 1]], 'bcx'))


def test_machines_rank_the_columns_of_one_class():
    generator = torch.Generator().manual_seed(0)
    targets = torch.eye(3, dtype=torch.int64).repeat(12, 1)
    x = targets + 0.1 * torch.rand(36, 3, generator=generator)
    data = x, Labels(targets, 'abc'), x, Labels(targets[:, [2, 0, 1]], 'cab')
    assert voc_svm(*data, costs=(1.0,))['ap'] == pytest.approx(dict(a=100, b=100, c=100))
    assert low_shot_svm(*data, shots=(2,), draws=1, costs=(1.0,))['2']['mean'] == pytest.approx(100)
    assert transfer(*data, metric='map11', penalties=(1e-3,))['score'] == pytest.approx(100)


def test_what_no_name_can_tell():
    with pytest.raises(ValueError, match='a name stands twice'):
        aligned(Labels([0, 1, 2], ['crane', 'b', 'crane']), Labels([0], ['crane']))
    assert aligned(Labels([0, 1], 'xx'), Labels([1, 0], 'xx'))[1].tolist() == [1, 0]  # one list: one numbering
    with pytest.raises(ValueError, match='2 class names .a, b. for 3 classes'):
        Labels([0, 2], 'ab')
    with pytest.warns(UserWarning, match='only the training source names its classes .a, b.'):
        aligned(Labels([0, 1], 'ab'), Labels([0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert aligned([0, 1], np.array([1, 0]))[1].tolist() == [1, 0]
        aligned(Labels([0, 1]), Labels([0, 1]))


def test_names_follow_rows_and_copies_and_nothing_else():
    y = Labels([0, 1, 2, 1], 'abc')
    for kept in (y[1:], y[torch.tensor([3, 0])], y[y > 0], y.cpu(), y.clone(), y.to(torch.int32), copy.deepcopy(y)):
        assert kept.classes == ('a', 'b', 'c')
    for plain in (y + 1, y == 1, y[0], y.unique(), torch.cat([y, y]), y[:, None]):
        assert type(plain) is torch.Tensor
    targets = Labels([[1, 0], [0, 1]], 'ab')
    assert targets[1:].classes == ('a', 'b')
    assert type(targets[:, :1]) is torch.Tensor
    assert np.asarray(y).tolist() == [0, 1, 2, 1]


def test_files_of_labels_open_without_trust(tmp_path):
    torch.save(dict(labels=Labels([0, 1], 'ab')), tmp_path / 'labels.pt')
    assert torch.load(tmp_path / 'labels.pt', weights_only=True)['labels'].tolist() == [0, 1]


def test_sources_of_one_and_of_several_classes():
    class Given:
        labels, classes = np.array([1, 0]), ['cat', 7]

    assert labels_of(Given()).classes == ('cat', '7')
    Given.targets = np.eye(2, dtype=np.int8)
    assert labels_of(Given()).tolist() == [[1, 0], [0, 1]]
    Given.classes = None
    assert labels_of(Given()).classes == ()


def test_names_are_a_list_in_one_form_of_unicode():
    composed, decomposed = Labels([0, 1], ['caf\u00e9', 'a']), Labels([0, 1], ['a', 'cafe\u0301'])
    assert aligned(composed, decomposed)[1].tolist() == [1, 0]
    for classes in ({'a': 1, 'b': 0}, {'a', 'b'}, 2):
        with pytest.raises(TypeError, match='expected a list: the names of class 0, 1, 2'):
            Labels([0, 1], classes)


def test_long_lists_are_cut():
    known = [f'n{i:03d}' for i in range(500)]
    with pytest.raises(ValueError, match=r'n019, \.\.\. \(480 more\)') as error:
        renumber(torch.tensor([0]), ['dog'], known)
    assert len(str(error.value)) < 600
