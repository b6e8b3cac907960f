"""Logistic regression is scikit-learn's, for one penalty and along a path; scores with few labels are those of their draws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clusters import clusters
from sklearn.linear_model import LogisticRegression

from mmkernel.evaluation import draw_labelled, few_label_scores, logistic_regression, scale_features, weighted_knn
from mmkernel.evaluation.logistic import logistic_path
from mmkernel.evaluation.transfer_tasks import PENALTIES


def test_logistic_regression_is_scikit_learns():
    train_x, train_y, test_x, test_y = clusters(noise=2.0)
    for scaling in ('none', 'l2', 'standard'):
        a, b = scale_features(train_x, test_x, scaling)
        expected = LogisticRegression(C=3.0, max_iter=3000, tol=1e-8)
        expected = expected.fit(a.double().numpy(), train_y.numpy()).score(b.double().numpy(), test_y)
        assert logistic_regression(train_x, train_y, test_x, test_y, 3.0, scaling)['top1'] == pytest.approx(
            100 * expected
        )


def test_two_classes_have_one_vector_as_with_scikit_learn():
    """Two vectors under the same penalty would halve it: with a strong one the margins tell."""
    train_x, train_y, test_x, test_y = clusters(noise=2.0, classes=2, width=30, train=40)
    for strength in (1e-3, 0.1, 10.0):
        fit = LogisticRegression(C=strength, max_iter=3000, tol=1e-8).fit(train_x.double().numpy(), train_y.numpy())
        found = logistic_regression(train_x, train_y, test_x, test_y, strength, 'none')
        assert found['top1'] == pytest.approx(100 * fit.score(test_x.double().numpy(), test_y.numpy()))


def test_two_classes_and_classes_without_a_training_image():
    train_x, train_y, test_x, test_y = clusters(noise=0.05, classes=3)
    kept = train_y != 1
    result = logistic_regression(train_x[kept], train_y[kept], test_x, test_y)
    assert result['top1'] == pytest.approx(100 * (test_y != 1).float().mean().item())


def test_a_class_without_a_training_image_is_not_among_the_first_five_either():
    train_x, train_y, test_x, test_y = clusters(noise=0.05, classes=4)
    kept = train_y < 2
    result = logistic_regression(train_x[kept], train_y[kept], test_x, test_y)
    assert result['top5'] == pytest.approx(100 * (test_y < 2).float().mean().item())


def test_one_class_is_refused():
    train_x, train_y, test_x, test_y = clusters()
    with pytest.raises(ValueError, match='expected at least 2 classes'):
        logistic_regression(train_x, torch.zeros_like(train_y), test_x, test_y)


def far_clusters():
    """Away from the origin, in float64."""
    x, y, rows, truth = clusters(150, noise=2.0, dtype=torch.float64)
    return 3 + x, y, 3 + rows, truth


def test_path_is_the_optimum_of_scikit_learn():
    x, y, rows, _ = far_clusters()
    penalties = (100.0, 1.0, 1e-3)
    for l2, predict in zip(penalties, logistic_path(x, y, penalties, 4), strict=True):
        fit = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
        expected = F.softmax(torch.from_numpy(fit.decision_function(rows.numpy())), 1)
        torch.testing.assert_close(F.softmax(predict(rows), 1), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize('scale', [1e-2, 1, 1e2])
def test_the_ends_of_the_path_in_single_precision(scale):
    """The loss of each solution is within a thousandth of the optimum's, whatever the units of the features."""
    x, y, _, _ = far_clusters()
    x = scale * x
    penalties = sorted(PENALTIES, reverse=True)
    centred = (x - x.mean(0)).numpy()

    def value(logits, weight, l2):
        return float(F.cross_entropy(logits, y, reduction='sum')) + 0.5 * l2 * float(np.square(weight).sum())

    for l2, predict in zip(penalties, logistic_path(x.float(), y, penalties, 4), strict=True):
        if l2 in (penalties[0], penalties[20], penalties[-1]):
            fit = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20000).fit(centred, y.numpy())
            best = value(torch.from_numpy(fit.decision_function(centred)), fit.coef_, l2)
            origin, *axes = predict(torch.cat([torch.zeros(1, 6), 1e3 * scale * torch.eye(6)])).double()
            weight = (torch.stack(axes) - origin).numpy() / (1e3 * scale)
            assert value(predict(x).double(), weight, l2) == pytest.approx(best, rel=1e-3)


def test_binary_paths_of_several_classes_leave_out_the_difficult():
    x, y, rows, _ = far_clusters()
    targets = F.one_hot(y, 4)
    targets[:30, 1] = -1
    (predict,) = logistic_path(x, targets, [0.5], 4)
    for k in range(4):
        kept = targets[:, k] != -1
        fit = LogisticRegression(C=2.0, tol=1e-10, max_iter=5000).fit(x[kept].numpy(), targets[kept, k].numpy())
        torch.testing.assert_close(
            predict(rows)[:, k], torch.from_numpy(fit.decision_function(rows.numpy())), atol=1e-3, rtol=1e-3
        )


def five_clusters(noise=0.8):
    return clusters(100, 50, classes=5, noise=noise, width=8)


def test_draws_hold_each_class_equally_often_and_repeat():
    labels = five_clusters()[1]
    first = draw_labelled(labels, 4, draw=0)
    assert torch.bincount(labels[first]).tolist() == [4] * 5
    assert len(first.unique()) == 20
    assert torch.equal(first, draw_labelled(labels, 4, draw=0))
    assert not torch.equal(first, draw_labelled(labels, 4, draw=1))
    assert not torch.equal(first, draw_labelled(labels, 4, draw=0, seed=1))


def test_too_few_images_of_a_class():
    with pytest.raises(ValueError, match='class 1 has 1 images; 2 per class'):
        draw_labelled(np.array([0, 0, 0, 1]), 2, draw=0)


def test_scores_are_those_of_the_draws():
    train_x, train_y, test_x, test_y = data = five_clusters()
    scores = few_label_scores(*data, draws=3, seed=7)
    for draw in range(3):
        rows = draw_labelled(train_y, 1, draw, seed=7)
        nearest = weighted_knn(train_x[rows], train_y[rows], test_x, test_y, 1)[1]['top1']
        assert scores['knn']['1']['values'][draw] == nearest
    values = scores['knn']['1']['values']
    assert scores['knn']['1']['mean'] == pytest.approx(np.mean(values))
    assert scores['knn']['1']['sd'] == pytest.approx(np.std(values, ddof=1))
    assert scores['knn']['all'] == dict(
        mean=weighted_knn(*data, 20)[20]['top1'], sd=0.0, values=scores['knn']['all']['values']
    )
    assert list(scores['linear']) == ['1', '4', 'all']


def test_rows_are_paired_and_reproducible():
    train_x, train_y, test_x, test_y = five_clusters()
    assert few_label_scores(train_x, train_y, test_x, test_y, draws=2) == few_label_scores(
        3 * train_x, train_y, 3 * test_x, test_y, draws=2
    )


def test_more_labels_help():
    scores = few_label_scores(*five_clusters(noise=0.5), draws=5)
    for kind in ('knn', 'linear'):
        assert scores[kind]['1']['mean'] < scores[kind]['4']['mean'] <= scores[kind]['all']['mean']


def test_progress_reaches_its_end():
    seen = []
    few_label_scores(*five_clusters(), draws=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_numbers_of_classes_may_have_gaps():
    train_x, train_y, test_x, test_y = five_clusters()
    gaps = few_label_scores(train_x, 50 * train_y, test_x, 50 * test_y, shots=(4,), draws=2)
    assert gaps == few_label_scores(train_x, train_y, test_x, test_y, shots=(4,), draws=2)
