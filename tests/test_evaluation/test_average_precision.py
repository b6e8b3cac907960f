import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mmkernel.evaluation import average_precision, class_precisions


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
