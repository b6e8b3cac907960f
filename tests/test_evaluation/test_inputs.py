"""Features and labels as people bring them: any type, layout and scale that holds numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clusters import clusters
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkernel.evaluation import linear_probe, scale_features, split_rows, transfer, weighted_knn
from mmkernel.evaluation.inputs import as_features, as_labels, as_split, unit_rows


def test_ordinary_rows_are_normalised_as_everywhere():
    x = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(unit_rows(x), F.normalize(x, dim=1))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(-36, 36), st.integers(0, 99))
def test_directions_do_not_depend_on_the_scale(exponent, seed):
    x = torch.randn(5, 9, generator=torch.Generator().manual_seed(seed))
    scaled = x * 10.0**exponent
    torch.testing.assert_close(unit_rows(scaled), unit_rows(x), rtol=0, atol=1e-6)


def test_rows_of_zeros_stay_and_disturb_no_other():
    x = torch.cat([torch.zeros(2, 3), torch.eye(3) * 1e-25])
    assert torch.equal(unit_rows(x), torch.cat([torch.zeros(2, 3), torch.eye(3)]))
    assert torch.equal(unit_rows(x, point=True)[:3], torch.eye(3)[:1].expand(3, 3))


@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_neighbours_do_not_depend_on_the_scale(scale):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(4, (80,), generator=generator)
    x = F.one_hot(y, 8) + 0.5 * torch.randn(80, 8, generator=generator)
    plain = weighted_knn(x[:60], y[:60], x[60:], y[60:], 5)
    assert weighted_knn(scale * x[:60], y[:60], scale * x[60:], y[60:], 5) == plain


@pytest.mark.parametrize(
    'change',
    [
        lambda x: np.ascontiguousarray(x.numpy()[::-1])[::-1],
        lambda x: np.asfortranarray(x.numpy()),
        lambda x: x.numpy().astype('>f4'),
        lambda x: x.tolist(),
        lambda x: x.T.contiguous().T,
    ],
    ids=['backwards', 'columns', 'big-endian', 'lists', 'strided'],
)
def test_layouts(change):
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(as_features(change(x), 'features'), x)


def test_types_of_features():
    assert as_features(torch.ones(2, 3, dtype=torch.bfloat16), 'features').dtype == torch.float32
    assert as_features(np.ones((2, 3), int), 'features').dtype == torch.float32
    x = torch.ones(2, 3)
    for other, expected in ((x, torch.float32), (x.double(), torch.float64)):
        train_x, _, test_x, _, _ = as_split(x, [0, 1], other, [0, 1])
        assert train_x.dtype == test_x.dtype == expected


@pytest.mark.parametrize('kind', ['uint8', 'int32', 'uint16', 'float32'])
def test_types_of_labels(kind):
    assert torch.equal(as_labels(np.array([0, 7, 3], kind), 3, 'labels'), torch.tensor([0, 7, 3]))


def test_labels_that_are_none():
    with pytest.raises(ValueError, match='hold fractions or NaN'):
        as_labels([0.5, 1.0], 2, 'labels')
    with pytest.raises(ValueError, match='hold fractions or NaN'):
        as_labels([float('nan'), 1.0], 2, 'labels')
    with pytest.raises(ValueError, match='labels hold <U3; expected numbers'):
        as_labels(np.array(['cat', 'dog']), 2, 'labels')


@pytest.mark.parametrize('k', [np.int64(5), torch.tensor(5), [np.int32(5)], (5,)])
def test_numbers_of_neighbours(k):
    x, y = torch.eye(8), torch.arange(8)
    assert weighted_knn(x, y, x, y, k)[5]['top1'] == 100


@pytest.mark.parametrize('k', [2.5, 0, [], '5'])
def test_what_is_no_number_of_neighbours(k):
    with pytest.raises(ValueError, match='k=.*; expected one or more finite whole numbers > 0'):
        weighted_knn(torch.eye(8), torch.arange(8), torch.eye(8), torch.arange(8), k)


@pytest.mark.parametrize('probe', [weighted_knn, linear_probe, transfer])
def test_a_class_absent_from_training_is_named_and_counts_as_wrong(probe):
    settings = {weighted_knn: dict(k=1), linear_probe: dict(epochs=1), transfer: dict(penalties=(1.0,))}[probe]
    x, train_y, test_y = torch.eye(6), torch.tensor([0, 0, 1, 1, 3, 3]), torch.tensor([0, 0, 1, 1, 7, 9])
    with pytest.warns(UserWarning, match=r'2 of 6 test images belong to classes without a training image \(7, 9\)'):
        found = probe(x, train_y, x, test_y, **settings)
    if probe is weighted_knn:
        assert found[1]['top1'] == pytest.approx(100 * 4 / 6)


def test_one_class_alone_is_no_test():
    with pytest.warns(UserWarning, match='all 6 training images have label 2: an accuracy says nothing'):
        weighted_knn(torch.eye(6), torch.full((6,), 2), torch.eye(6), torch.full((6,), 2), k=1)


@pytest.mark.parametrize('scaling', ['l2', 'standard'])
@pytest.mark.parametrize('scale', [1e-20, 1e20])
def test_scaled_features_have_no_units(scaling, scale):
    train_x, _, test_x, _ = clusters()
    expected = scale_features(train_x, test_x, scaling)
    for a, b in zip(scale_features(scale * train_x, scale * test_x, scaling), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_scalings():
    train_x, _, test_x, _ = clusters()
    train_x[:, 0] = 3.0  # never changes
    a, b = scale_features(train_x, test_x, 'standard')
    torch.testing.assert_close(a[:, 1:].mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(a[:, 1:].std(0, correction=0), torch.ones(5))
    assert (a[:, 0] == 0).all()
    assert (b[:, 0] == 0).all()
    torch.testing.assert_close(scale_features(train_x, test_x, 'l2')[1].norm(dim=1), torch.ones(60))
    with pytest.raises(ValueError, match="scaling is one of 'none', 'l2', 'standard', got 'l1'"):
        scale_features(train_x, test_x, 'l1')


def test_held_out_rows_leave_each_class_an_image():
    labels = np.array([0] * 10 + [1] * 2 + [2])
    fit, choose = split_rows(labels, 0.5)
    assert sorted([*fit, *choose]) == list(range(13))
    assert np.bincount(labels[choose], minlength=3).tolist() == [5, 1, 0]
    with pytest.raises(ValueError, match='nothing to choose by'):
        split_rows(np.arange(10), 0.1)
    with pytest.raises(ValueError, match='between 0 and 1'):
        split_rows(np.arange(10), 1.0)
