import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkernel.evaluation import knn_predict, nearest, weighted_knn

GOLDEN = Path(__file__).parents[1] / 'golden' / 'knn_noise1.0.npz'


def clusters(train=300, test=40, classes=12, noise=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 8, generator=generator)
    labels = torch.randint(classes, (train + test,), generator=generator)
    points = centres[labels] + noise * torch.randn(train + test, 8, generator=generator)
    return points[:train], labels[:train], points[train:], labels[train:]


def dense_votes(train_x, train_y, test_x, test_y, k, temperature, classes):
    """The published formula with everything in memory at once."""
    similarity, index = (F.normalize(test_x) @ F.normalize(train_x).T).topk(k, dim=1)
    one_hot = F.one_hot(train_y[index], classes)
    votes = (one_hot * (similarity / temperature).exp()[..., None]).sum(1)
    hit = (votes.sort(dim=1, descending=True).indices == test_y[:, None]) & (votes.gather(1, test_y[:, None]) > 0)
    return [100 * hit[:, :ranks].sum().item() / len(test_y) for ranks in (1, min(5, k))]


def test_golden():
    golden = np.load(GOLDEN)
    data = [golden[f'in_{name}'] for name in ('train_features', 'train_labels', 'test_features', 'test_labels')]
    k = golden['hp_k'].tolist()
    result = weighted_knn(*data, k, float(golden['hp_T']), int(golden['hp_num_classes']))
    assert [result[each]['top1'] for each in k] == golden['out_top1'].tolist()
    assert [result[each]['top5'] for each in k] == golden['out_top5'].tolist()


@pytest.mark.parametrize('temperature', [0.07, 0.5])
@pytest.mark.parametrize('k', [1, 2, 5, 50])
def test_equals_the_dense_formula(k, temperature):
    data = clusters()
    result = weighted_knn(*data, k, temperature, num_classes=12)
    assert [result[k]['top1'], result[k]['top5']] == dense_votes(*data, k, temperature, 12)


@pytest.mark.parametrize('k', [1, 7, 300])
def test_votes_and_predictions_are_those_that_are_scored(k):
    train_x, train_y, test_x, test_y = clusters()
    votes, classes = knn_predict(train_x, train_y, test_x, k, num_classes=14)
    similarity = F.normalize(test_x) @ F.normalize(train_x).T
    nearest_similarity, index = similarity.topk(k, dim=1)
    weight = ((nearest_similarity - nearest_similarity[:, :1]) / 0.07).exp()
    expected = torch.zeros(40, 14).scatter_add_(1, train_y[index], weight)
    torch.testing.assert_close(votes, expected)
    right = 100 * float((classes == test_y).double().mean())
    assert right == pytest.approx(weighted_knn(train_x, train_y, test_x, test_y, k)[k]['top1'])


def by_hand(train_x, train_y, test_x, test_y, k, temperature, classes):
    """One image and one vote at a time, in double."""
    right = [0, 0]
    for x, label in zip(test_x.double(), test_y.tolist(), strict=True):
        cosine = F.cosine_similarity(x[None], train_x.double())
        votes = torch.zeros(classes, dtype=torch.float64)
        for i in cosine.argsort(descending=True)[:k].tolist():
            votes[train_y[i]] += math.exp((float(cosine[i]) - 1) / temperature)
        own = float(votes[label])
        rank = sum(v >= own for v in votes.tolist()) - 1
        right = [right[0] + (own > 0 and rank < 1), right[1] + (own > 0 and rank < min(5, k))]
    return [100 * hits / len(test_y) for hits in right]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    train=st.integers(1, 40),
    test=st.integers(1, 6),
    classes=st.integers(1, 9),
    k=st.integers(1, 45),
    temperature=st.sampled_from([0.01, 0.07, 1.0, 100.0]),
    seed=st.integers(0, 999),
)
@pytest.mark.filterwarnings('ignore:k=')
def test_any_small_problem_by_hand(train, test, classes, k, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    train_x, test_x = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (train, test))
    train_y, test_y = (torch.randint(classes, (n,), generator=generator) for n in (train, test))
    found = weighted_knn(train_x, train_y, test_x, test_y, k, temperature, classes)[k]
    expected = by_hand(train_x, train_y, test_x, test_y, min(k, train), temperature, classes)
    assert [found['top1'], found['top5']] == pytest.approx(expected)


def test_all_k_from_one_search_equal_separate_searches():
    data, counts = clusters(), (1, 7, 60)
    assert weighted_knn(*data, counts) == {k: weighted_knn(*data, k)[k] for k in counts}


@pytest.mark.parametrize('queries', [1, 3, 99])
def test_any_number_of_queries(queries):
    train_x, train_y, test_x, test_y = clusters(test=99)
    scores = weighted_knn(train_x, train_y, test_x[:queries], test_y[:queries], 5)[5]
    assert scores['top1'] * queries / 100 == pytest.approx(round(scores['top1'] * queries / 100))


def test_k_beyond_the_bank_is_clipped_with_a_notice():
    train_x, train_y, test_x, test_y = clusters(train=30)
    with pytest.warns(UserWarning, match='200 exceeds the 30 images'):
        result = weighted_knn(train_x, train_y, test_x, test_y, (10, 200))
    assert result[200] == weighted_knn(train_x, train_y, test_x, test_y, 30)[30]
    assert result[200]['neighbours'] == 30


def test_a_tiny_temperature_is_the_nearest_neighbour():
    data = clusters()
    assert weighted_knn(*data, 20, temperature=1e-5)[20]['top1'] == weighted_knn(*data, 1)[1]['top1']


def test_scale_of_features_does_not_matter():
    train_x, train_y, test_x, test_y = clusters()
    assert weighted_knn(7 * train_x, train_y, test_x / 9, test_y, 20) == weighted_knn(*clusters(), 20)


@pytest.mark.parametrize('chunks', [{}, dict(query_chunk=7, bank_chunk=10), dict(bank_chunk=999)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])  # searched by faiss, by torch
def test_nearest_is_sorted_and_chunked_exactly(chunks, dtype):
    train_x, _, test_x, _ = clusters(train=2000)
    similarity, index = nearest(test_x.to(dtype), train_x.to(dtype), 25, **chunks)
    expected = (F.normalize(test_x) @ F.normalize(train_x).T).sort(dim=1, descending=True)
    torch.testing.assert_close(similarity.float(), expected.values[:, :25])
    assert torch.equal(index, expected.indices[:, :25])


@pytest.mark.parametrize('options', [{}, dict(bank_chunk=2)])
def test_the_whole_bank_is_the_most_there_is(options):
    bank = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    similarity, index = nearest(bank[:2], bank, 20, **options)
    assert similarity.shape == (2, 5)
    assert index.sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 2


@pytest.mark.parametrize('k', [0, -1, 2.5])
def test_a_search_needs_a_neighbour(k):
    with pytest.raises(ValueError, match='k=.*; expected one or more finite whole numbers > 0'):
        nearest(torch.ones(2, 2), torch.ones(4, 2), k)


def test_queries_and_bank_are_of_one_kind():
    with pytest.raises(ValueError, match='queries have width 2, rows of the bank 3'):
        nearest(torch.ones(2, 2), torch.ones(4, 3), 1)
    assert nearest(torch.ones(2, 2), torch.ones(4, 2).double(), 1)[0].dtype == torch.float64


def test_half_precision_features_are_compared_in_float32():
    train_x, train_y, test_x, test_y = clusters()
    similarity, _ = nearest(test_x.half(), train_x.half(), 3)
    assert similarity.dtype == torch.float32


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(train_x=torch.full((4, 2), torch.nan)), 'NaN or infinity'),
        (dict(train_y=torch.tensor([0, 1, -1, -1])), '2 of 4 images have no label'),
        (dict(test_x=torch.ones(2, 3)), 'width 2, test features 3'),
        (dict(test_y=torch.tensor([0])), 'expected \\(2,\\)'),
        (dict(train_x=torch.ones(4)), 'expected \\(images, features\\)'),
        (dict(k=0), 'k=.*finite whole numbers > 0'),
        (dict(k=()), 'k=.*finite whole numbers > 0'),
        (dict(temperature=0.0), 'temperature=0.0; expected .* numbers > 0'),
        (dict(num_classes=1), 'label 1 occurs'),
    ],
)
def test_bad_input(change, message):
    good = dict(
        train_x=torch.ones(4, 2),
        train_y=torch.tensor([0, 1, 0, 1]),
        test_x=torch.ones(2, 2),
        test_y=torch.tensor([0, 1]),
        k=1,
    )
    with pytest.raises(ValueError, match=message):
        weighted_knn(**good | change)
