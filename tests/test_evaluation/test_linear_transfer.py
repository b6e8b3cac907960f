import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from mmkernel.evaluation import TRANSFER_SETS, average_precision, mean_per_class, transfer
from mmkernel.evaluation.logistic import logistic_path
from mmkernel.evaluation.transfer_tasks import PENALTIES
from mmkernel.registry import DATASETS


def clusters(train=150, test=60, classes=4, noise=2.0, width=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    labels = torch.arange(train + test) % classes
    points = 3 + centres[labels] + noise * torch.randn(train + test, width, generator=generator, dtype=torch.float64)
    return points[:train], labels[:train], points[train:], labels[train:]


def test_the_suite():
    assert len(TRANSFER_SETS) == 12
    assert all(one.source in DATASETS for one in TRANSFER_SETS.values())
    by_class = {name for name, one in TRANSFER_SETS.items() if one.metric == 'mean_per_class'}
    assert by_class == {'aircraft', 'pets', 'caltech101', 'flowers102'}
    assert [name for name, one in TRANSFER_SETS.items() if one.metric == 'map11'] == ['voc2007']
    assert (len(PENALTIES), PENALTIES[0], PENALTIES[-1]) == (45, pytest.approx(1e-6), pytest.approx(1e5))


def test_path_is_the_optimum_of_scikit_learn():
    x, y, rows, _ = clusters()
    penalties = (100.0, 1.0, 1e-3)
    for l2, predict in zip(penalties, logistic_path(x, y, penalties, 4), strict=True):
        fit = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
        expected = F.softmax(torch.from_numpy(fit.decision_function(rows.numpy())), 1)
        torch.testing.assert_close(F.softmax(predict(rows), 1), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize('scale', [1e-2, 1, 1e2])
def test_the_ends_of_the_path_in_single_precision(scale):
    """The loss of each solution is within a thousandth of the optimum's, whatever the units of the features."""
    x, y, _, _ = clusters()
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
    x, y, rows, _ = clusters()
    targets = F.one_hot(y, 4)
    targets[:30, 1] = -1
    (predict,) = logistic_path(x, targets, [0.5], 4)
    for k in range(4):
        kept = targets[:, k] != -1
        fit = LogisticRegression(C=2.0, tol=1e-10, max_iter=5000).fit(x[kept].numpy(), targets[kept, k].numpy())
        torch.testing.assert_close(
            predict(rows)[:, k], torch.from_numpy(fit.decision_function(rows.numpy())), atol=1e-3, rtol=1e-3
        )


def test_penalty_is_chosen_on_the_validation_images_and_refitted():
    x, y, rows, truth = clusters()
    validation = torch.arange(len(x)) >= 110
    penalties = np.logspace(-3, 4, 8)
    result = transfer(x, y, rows, truth, validation=validation, penalties=penalties)
    scores = {}
    for l2 in penalties:
        fit = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=5000).fit(x[~validation].numpy(), y[~validation].numpy())
        scores[l2] = 100 * fit.score(x[validation].numpy(), y[validation].numpy())
    best = max(sorted(scores, reverse=True), key=scores.get)
    assert result['l2'] == best
    assert result['validation'] == pytest.approx(scores[best])
    fit = LogisticRegression(C=1 / best, tol=1e-10, max_iter=5000).fit(x.numpy(), y.numpy())
    assert result['score'] == pytest.approx(100 * fit.score(rows.numpy(), truth.numpy()))


def test_validation_images_of_our_own_are_a_fifth_of_each_class_by_seed():
    from mmkernel.evaluation.transfer_tasks import _held_out

    y = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    chosen = _held_out(y, 0)
    assert y[chosen].bincount(minlength=4).tolist() == [10, 2, 1, 0]
    assert torch.equal(chosen, _held_out(y, 0))
    assert not torch.equal(chosen, _held_out(y, 1))
    assert _held_out(torch.zeros(50, 3), 0).sum() == 10


def test_metrics():
    predicted, labels = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 2])
    assert mean_per_class(predicted, labels) == 50
    x, y, rows, truth = clusters(noise=0.05)
    assert transfer(x, y, rows, truth, 'mean_per_class', penalties=(1e-2,))['score'] == 100
    several = transfer(x, F.one_hot(y, 4), rows, F.one_hot(truth, 4), 'map11', penalties=(1e-2,))
    assert several['score'] == pytest.approx(100)
    noisy_x, noisy_y, noisy_rows, noisy_truth = clusters()
    result = transfer(noisy_x, F.one_hot(noisy_y, 4), noisy_rows, F.one_hot(noisy_truth, 4), 'map11', penalties=(1.0,))
    (predict,) = logistic_path(noisy_x, F.one_hot(noisy_y, 4), [1.0], 4)
    scores = predict(noisy_rows)
    expected = [average_precision(noisy_truth == k, scores[:, k], '11') for k in range(4)]
    assert result['score'] == pytest.approx(100 * np.mean(expected))


def test_class_without_a_training_image_is_never_right():
    x, y, rows, truth = clusters(noise=0.05)
    kept = y != 3
    assert transfer(x[kept], y[kept], rows, truth, penalties=(1e-2,))['score'] == pytest.approx(75)


def test_bad_input():
    x, y, rows, truth = clusters()
    with pytest.raises(ValueError, match="metric is one of 'top1', 'mean_per_class', 'map11', got 'top5'"):
        transfer(x, y, rows, truth, 'top5')
    with pytest.raises(ValueError, match=r'train targets have shape \(150,\); expected \(150, classes\)'):
        transfer(x, y, rows, truth, 'map11')
    with pytest.raises(ValueError, match='validation marks 0 of'):
        transfer(x, y, rows, truth, validation=torch.zeros(150))
    with pytest.raises(ValueError, match='validation marks 0 of'):
        transfer(x[:4], y[:4], rows, truth)
    with pytest.raises(ValueError, match='no validation image shows any class'):
        transfer(x, F.one_hot(y, 5)[:, 4:], rows, F.one_hot(truth, 5)[:, 4:], 'map11')
    with pytest.raises(ValueError, match='train features have width 6, test features 5'):
        transfer(x, y, rows[:, :5], truth)
    for penalties in ((), (-1.0,), (float('nan'),)):
        with pytest.raises(ValueError, match='expected one or more finite numbers >= 0'):
            transfer(x, y, rows, truth, penalties=penalties)
    with pytest.raises(ValueError, match='have no label'):
        transfer(x, -torch.ones_like(y), rows, truth)
