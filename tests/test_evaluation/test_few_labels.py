import numpy as np
import pytest
import torch

from mmkernel.evaluation import draw_labelled, few_label_scores, weighted_knn


def clusters(noise=0.8, classes=5, width=8):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(150) % classes
    points = torch.randn(classes, width, generator=generator)[labels]
    points = points + noise * torch.randn(150, width, generator=generator)
    return points[:100], labels[:100], points[100:], labels[100:]


def test_draws_hold_each_class_equally_often_and_repeat():
    labels = clusters()[1]
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
    train_x, train_y, test_x, test_y = data = clusters()
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
    train_x, train_y, test_x, test_y = clusters()
    assert few_label_scores(train_x, train_y, test_x, test_y, draws=2) == few_label_scores(
        3 * train_x, train_y, 3 * test_x, test_y, draws=2
    )


def test_more_labels_help():
    scores = few_label_scores(*clusters(noise=0.5), draws=5)
    for kind in ('knn', 'linear'):
        assert scores[kind]['1']['mean'] < scores[kind]['4']['mean'] <= scores[kind]['all']['mean']


def test_progress_reaches_its_end():
    seen = []
    few_label_scores(*clusters(), draws=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_numbers_of_classes_may_have_gaps():
    train_x, train_y, test_x, test_y = clusters()
    gaps = few_label_scores(train_x, 50 * train_y, test_x, 50 * test_y, shots=(4,), draws=2)
    assert gaps == few_label_scores(train_x, train_y, test_x, test_y, shots=(4,), draws=2)
