import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.svm import LinearSVC

from mmkernel.evaluation import average_precision, low_shot_svm, voc_svm
from mmkernel.evaluation.svm import COSTS


def cloud(train=90, test=60, classes=3, width=8, noise=1.0, seed=0):
    """Features that are the sum of one direction per class that is there, and noise."""
    generator = np.random.default_rng(seed)
    targets = (generator.random((train + test, classes)) < 0.35).astype(np.int8)
    directions = generator.normal(size=(classes, width))
    x = targets @ directions + noise * generator.normal(size=(train + test, width))
    return x[:train].astype(np.float32), targets[:train], x[train:].astype(np.float32), targets[train:]


def unit(x):
    x = x.astype(np.float64)
    return x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-5)


def test_the_full_list_of_costs():
    assert len(COSTS) == 19
    assert COSTS[:3] == (1, 10, 100)
    assert COSTS[3:] == tuple(0.5**k for k in range(4, 20))


def test_cost_and_scores_are_those_of_scikit_learns_grid_search():
    train_x, train_y, test_x, test_y = cloud(noise=2.0)
    costs = (1.0, 10.0, 2**-4, 2**-8, 2**-14)
    result = voc_svm(train_x, train_y, test_x, test_y, ['a', 'b', 'c'], costs)
    for k, name in enumerate('abc'):
        machine = LinearSVC(class_weight={1: 2, 0: 1}, dual=True, max_iter=2000, random_state=0)
        search = GridSearchCV(machine, {'C': costs}, scoring='average_precision', cv=3)
        search.fit(unit(train_x), train_y[:, k])
        assert result['cost'][name] == search.best_params_['C']
        scores = search.decision_function(unit(test_x))
        assert result['ap'][name] == pytest.approx(100 * average_precision(test_y[:, k] == 1, scores))
    assert result['mAP'] == pytest.approx(np.mean([*result['ap'].values()]))
    assert result == voc_svm(train_x, train_y, test_x, test_y, ['a', 'b', 'c'], costs, jobs=2)


def test_difficult_is_a_negative_in_training_and_nothing_in_the_test():
    train_x, train_y, test_x, test_y = cloud(noise=0.5)
    marked, plain = train_y.copy(), train_y.copy()
    rows = np.flatnonzero(train_y[:, 0] == 1)[:4]
    marked[rows, 0], plain[rows, 0] = -1, 0
    costs = (1.0, 0.1)
    assert voc_svm(train_x, marked, test_x, test_y, costs=costs) == voc_svm(train_x, plain, test_x, test_y, costs=costs)
    left_out = test_y.copy()
    left_out[:10] = -1
    a = voc_svm(train_x, train_y, test_x, left_out, costs=costs)
    assert a == voc_svm(train_x, train_y, test_x[10:], test_y[10:], costs=costs)


@pytest.mark.parametrize('costs', [(1.0, 10.0), (10.0, 1.0)])
def test_of_equal_costs_the_first_wins(costs):
    train_x, train_y, test_x, test_y = cloud()
    found = voc_svm(np.zeros_like(train_x), train_y, np.zeros_like(test_x), test_y, costs=costs)
    assert set(found['cost'].values()) == {costs[0]}
    shares = 100 * test_y.mean(0)  # equal scores: every image together, the precision is the share of the class
    assert [*found['ap'].values()] == pytest.approx(shares.tolist())


def test_class_that_is_only_difficult():
    train_x, train_y, test_x, test_y = cloud()
    nowhere = train_y.copy()
    nowhere[:, 1] = np.where(train_y[:, 1] == 1, -1, 0)
    with pytest.raises(ValueError, match=r'3-fold cross-validation needs more training images.*b \(0\)'):
        voc_svm(train_x, nowhere, test_x, test_y, ['a', 'b', 'c'])
    test_y[:, 1] = np.where(test_y[:, 1] == 1, -1, 0)
    with pytest.warns(UserWarning, match='no test image of b'):
        result = voc_svm(train_x, train_y, test_x, test_y, ['a', 'b', 'c'], (1.0,))
    assert list(result['ap']) == ['a', 'c']


def test_low_shots_find_what_is_there():
    train_x, train_y, test_x, test_y = cloud(train=300, noise=0.2)
    shots = low_shot_svm(train_x, train_y, test_x, test_y, shots=(1, 20), draws=3, costs=(0.1, 10.0))
    assert list(shots) == ['1', '20']
    assert len(shots['1']['values']) == 3
    assert shots['20']['mean'] > shots['1']['mean']
    assert shots['20']['mean'] > 95
    assert shots['1']['sd'] == pytest.approx(np.std(shots['1']['values'], ddof=1))
    assert shots['1']['cost'] in (0.1, 10.0)
    again = low_shot_svm(train_x, train_y, test_x, test_y, shots=(20, 1), draws=3, costs=(0.1, 10.0), jobs=2)
    assert {k: again[k] for k in shots} == shots


def test_low_shots_that_a_class_does_not_have():
    data = cloud()
    with pytest.raises(ValueError, match=r'64 positives per class needs more training images.*class 0 \('):
        low_shot_svm(*data, shots=(1, 64))
    with pytest.raises(ValueError, match=r'60 negatives per class'):
        low_shot_svm(*data[:1], np.where(np.arange(90)[:, None] < 45, 1, data[1]), *data[2:], shots=(30,))


def test_bad_targets():
    train_x, train_y, test_x, test_y = cloud()
    with pytest.raises(ValueError, match=r'train targets have shape \(90,\); expected \(90, classes\)'):
        voc_svm(train_x, train_y[:, 0], test_x, test_y)
    with pytest.raises(ValueError, match='test targets'):
        voc_svm(train_x, train_y, test_x, test_y + 4)
    with pytest.raises(ValueError, match='3 classes, those of the test 2'):
        voc_svm(train_x, train_y, test_x, test_y[:, :2])


def test_bad_settings():
    data = cloud()
    for costs in ((), (0.0,), (-1.0,), (float('inf'),)):
        with pytest.raises(ValueError, match='expected one or more finite numbers > 0'):
            voc_svm(*data, costs=costs)
    for shots in ((0, 1), (), (1, 1)):
        with pytest.raises(ValueError, match='shots='):
            low_shot_svm(*data, shots=shots)
    with pytest.raises(ValueError, match='draws=0; expected'):
        low_shot_svm(*data, shots=(1,), draws=0)
    rare = data[1].copy()
    rare[:, 0] = np.arange(len(rare)) < 2
    with pytest.raises(ValueError, match=r'more training images than these classes have .*class 0 \(2\)'):
        voc_svm(data[0], rare, *data[2:])
