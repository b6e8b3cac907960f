"""Ranks of true classes, whatever the numbers of classes, and average precision by its definition."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from mmkernel.evaluation import (
    average_precision,
    class_precisions,
    label_ranks,
    linear_probe,
    linear_sweep,
    logistic_regression,
    mean_per_class,
    score_heads,
    weighted_knn,
)
from mmkernel.evaluation.classifier_metrics import OneClassMetrics
from mmkernel.models import OneClass

INF, NAN = float('inf'), float('nan')


def test_equal_scores_stand_before_the_true_class():
    scores = torch.tensor([[3.0, 1.0, 3.0, 2.0, -INF]]).expand(5, -1)
    assert [p if p < 9 else None for p in label_ranks(scores, torch.arange(5)).tolist()] == [1, 3, 1, 2, None]
    assert label_ranks(torch.tensor([[1.0, NAN], [0.0, INF], [INF, 0.0]]), torch.tensor([0, 0, 0])).tolist()[1] == 1
    nowhere = label_ranks(torch.tensor([[1.0, NAN], [INF, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 2, -1]))
    assert (nowhere > 9).all()


@pytest.mark.parametrize('order', [list(range(8)), list(range(7, -1, -1)), [3, 1, 4, 0, 5, 7, 2, 6]])
def test_no_count_depends_on_the_numbers_of_classes(order):
    """Scores full of ties, under three numberings of eight classes."""
    number = torch.tensor(order)
    generator = torch.Generator().manual_seed(0)
    logits, y = torch.randint(3, (60, 8), generator=generator).float(), torch.randint(8, (60,), generator=generator)
    renumbered = torch.empty_like(logits)
    renumbered[:, number] = logits
    first = (((logits >= logits.gather(1, y[:, None])).sum(1) - 1)[:, None] < torch.tensor([1, 5])).sum(0) / 0.6
    judge = OneClassMetrics(8, 60)
    judge.add(torch.arange(60), renumbered, dict(label=number[y]))
    found = judge.scores(judge.sums)
    assert [found['top1'], found['top5']] == pytest.approx(first.tolist())
    assert float(OneClass()(renumbered, number[y])['top1']) == pytest.approx(float(first[0]))
    heads = torch.eye(8)[None, :, None], torch.zeros(1, 1, 8)
    scored = score_heads(heads, renumbered, number[y], [lambda x: x])
    assert [float(scored['top1']), float(scored['top5'])] == pytest.approx(first.tolist())
    bank = torch.eye(8)[[0, 0, 1, 1, 2]]
    knn = weighted_knn(bank, number[[0, 0, 1, 1, 2]], bank.new_ones(8, 8), number, k=5)[5]
    assert (knn['top1'], knn['top5']) == (0, pytest.approx(37.5))  # two classes of two votes: neither is the first


def test_a_small_vote_is_a_vote():
    bank = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    votes = dict(k=2, temperature=0.001, num_classes=4)  # exp(-2000) is 0
    assert weighted_knn(bank, torch.tensor([0, 2]), bank[:1], torch.tensor([2]), **votes)[2]['top5'] == 100
    assert weighted_knn(bank, torch.tensor([0, 2]), bank[:1], torch.tensor([1]), **votes)[2]['top5'] == 0


@pytest.mark.filterwarnings('ignore:.* belong to classes without a training image')
@pytest.mark.parametrize('absent', [0, 2])
def test_a_class_that_training_lacks_is_among_no_first_five(absent):
    x, y = torch.eye(3).repeat(20, 1), torch.arange(3).repeat(20)
    kept = y != absent
    for score in (
        lambda *data: linear_probe(*data, epochs=3),
        lambda *data: logistic_regression(*data),
        lambda *data: linear_sweep(*data, (1.0,), (0.0,), epochs=3, seeds=(0,)),
    ):
        assert score(x[kept], y[kept], x, y)['top5'] == pytest.approx(100 * 2 / 3)


def test_mean_per_class():
    assert mean_per_class(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2])) == 50


def draw(count=60, seed=0, ties=False):
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, count) if ties else generator.normal(size=count)
    return generator.random(count) < 0.3, scores.astype(float)


def brute_force(relevant, scores, points):
    """The definition, threshold by threshold."""
    curve = []
    for threshold in sorted(set(scores), reverse=True):
        kept = scores >= threshold
        curve.append((relevant[kept].sum(), relevant[kept].mean()))
    hits = relevant.sum()
    if points == '11':
        return np.mean([max(p for n, p in curve if 10 * n >= t * hits) for t in range(11)])
    total, before = 0.0, 0
    for n, _ in curve:
        total += (n - before) / hits * max(p for m, p in curve if m >= n)
        before = n
    return total


@pytest.mark.parametrize('points', ['all', '11'])
@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('seed', range(5))
def test_definition(points, ties, seed):
    relevant, scores = draw(seed=seed, ties=ties)
    assert average_precision(relevant, scores, points) == pytest.approx(brute_force(relevant, scores, points))


@pytest.mark.parametrize('seed', range(5))
def test_never_below_scikit_learns_and_equal_where_precision_only_falls(seed):
    relevant, scores = draw(seed=seed)
    assert average_precision(relevant, scores) >= average_precision_score(relevant, scores) - 1e-12
    falling = np.array([1, 1, 1, 0, 0, 0], bool)
    assert average_precision(falling, [6, 5, 4, 3, 2, 1]) == average_precision_score(falling, [6, 5, 4, 3, 2, 1]) == 1
    relevant = np.array([1, 0, 1], bool)  # precisions 1, 1/2, 2/3: the maximum over larger recalls counts
    assert average_precision(relevant, [3, 2, 1]) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert average_precision(relevant, [3, 2, 1], '11') == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_three_of_ten_reach_a_recall_of_three_tenths():
    relevant = np.array([1] * 3 + [0] * 5 + [1] * 7, bool)
    scores = -np.arange(15)
    assert average_precision(relevant, scores, '11') == pytest.approx(brute_force(relevant, scores, '11'))


def test_difficult_ones_do_not_count():
    targets = np.array([[1], [-1], [0], [1]])
    scores = np.array([[4.0], [3.0], [1.0], [2.0]])
    assert class_precisions(targets, scores, ['bus']) == {'bus': 100.0}


def test_class_that_occurs_only_as_difficult():
    targets, scores = np.array([[1, -1], [0, 0]]), np.array([[2.0, 1.0], [1.0, 2.0]])
    with pytest.warns(UserWarning, match=r'no test image of car \(difficult ones'):
        assert class_precisions(targets, scores, ['bus', 'car']) == {'bus': 100.0}
    with (
        pytest.warns(UserWarning, match='class 0, class 1'),
        pytest.raises(ValueError, match='no class has a test image'),
    ):
        class_precisions(-np.ones((2, 2)), scores)


def test_bad_input():
    with pytest.raises(ValueError, match='at least one relevant'):
        average_precision([0, 0], [1.0, 2.0])
    with pytest.raises(ValueError, match="points is 'all' or '11', got '10'"):
        average_precision([1, 0], [1.0, 2.0], '10')
    with pytest.raises(ValueError, match='1 class names for 2 columns'):
        class_precisions(np.ones((2, 2)), np.ones((2, 2)), ['bus'])
    with pytest.raises(ValueError, match='relevance of 0 and 1'):
        average_precision([1, -1], [1.0, 2.0])
    with pytest.raises(ValueError, match='finite scores'):
        average_precision([1, 0], [1.0, float('nan')])
    with pytest.raises(ValueError, match='targets of 1'):
        class_precisions(np.array([[1, 255]], np.uint8), np.ones((1, 2)))
    with pytest.raises(ValueError, match=r'shape \(2, 2\) and scores of shape \(2, 3\)'):
        class_precisions(np.ones((2, 2)), np.ones((2, 3)))
