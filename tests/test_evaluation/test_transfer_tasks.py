"""Transfer chooses its penalty on validation images; transformations that h knows are told from those that g has lost."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clusters import clusters
from PIL import Image
from sklearn.linear_model import LogisticRegression

from mmkernel.evaluation import TRANSFER_SETS, average_precision, mlp_probe, predict_transformations, transfer
from mmkernel.evaluation.logistic import logistic_path
from mmkernel.evaluation.transfer_tasks import PENALTIES, _held_out
from mmkernel.registry import DATASETS


def far_clusters(noise=2.0):
    """Away from the origin, in float64."""
    x, y, rows, truth = clusters(150, noise=noise, dtype=torch.float64)
    return 3 + x, y, 3 + rows, truth


def test_the_suite():
    assert len(TRANSFER_SETS) == 12
    assert all(one.source in DATASETS for one in TRANSFER_SETS.values())
    by_class = {name for name, one in TRANSFER_SETS.items() if one.metric == 'mean_per_class'}
    assert by_class == {'aircraft', 'pets', 'caltech101', 'flowers102'}
    assert [name for name, one in TRANSFER_SETS.items() if one.metric == 'map11'] == ['voc2007']
    assert (len(PENALTIES), PENALTIES[0], PENALTIES[-1]) == (45, pytest.approx(1e-6), pytest.approx(1e5))


def test_penalty_is_chosen_on_the_validation_images_and_refitted():
    x, y, rows, truth = far_clusters()
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
    y = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3])
    chosen = _held_out(y, 0)
    assert y[chosen].bincount(minlength=4).tolist() == [10, 2, 1, 0]
    assert torch.equal(chosen, _held_out(y, 0))
    assert not torch.equal(chosen, _held_out(y, 1))
    assert _held_out(torch.zeros(50, 3), 0).sum() == 10


def test_metrics():
    x, y, rows, truth = far_clusters(noise=0.05)
    assert transfer(x, y, rows, truth, 'mean_per_class', penalties=(1e-2,))['score'] == 100
    several = transfer(x, F.one_hot(y, 4), rows, F.one_hot(truth, 4), 'map11', penalties=(1e-2,))
    assert several['score'] == pytest.approx(100)
    noisy_x, noisy_y, noisy_rows, noisy_truth = far_clusters()
    result = transfer(noisy_x, F.one_hot(noisy_y, 4), noisy_rows, F.one_hot(noisy_truth, 4), 'map11', penalties=(1.0,))
    (predict,) = logistic_path(noisy_x, F.one_hot(noisy_y, 4), [1.0], 4)
    scores = predict(noisy_rows)
    expected = [average_precision(noisy_truth == k, scores[:, k], '11') for k in range(4)]
    assert result['score'] == pytest.approx(100 * np.mean(expected))


def test_class_without_a_training_image_is_never_right():
    x, y, rows, truth = far_clusters(noise=0.05)
    kept = y != 3
    assert transfer(x[kept], y[kept], rows, truth, penalties=(1e-2,))['score'] == pytest.approx(75)


def test_bad_input():
    x, y, rows, truth = far_clusters()
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


def rings(count=400, seed=0):
    """Classes that no line divides: inside and outside of a circle; one column that never changes."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    labels = (points.norm(dim=1) > 1.2).long()
    return torch.cat([points, torch.full((count, 1), 7.0)], 1), labels


def test_what_no_line_divides_and_the_commonest_answer():
    (train_x, train_y), (test_x, test_y) = rings(), rings(100, 1)
    result = mlp_probe(train_x, train_y, test_x, test_y, hidden=64, epochs=40, batch_size=32, lr=1e-2)
    assert result['top1'] > 90
    assert result['majority'] == pytest.approx(100 * float((test_y == train_y.mode().values).double().mean()))
    assert result['top1'] > result['majority'] + 20


@pytest.mark.parametrize(
    'kinds', [(torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float16, torch.float32)]
)
def test_features_of_any_precision(kinds):
    (train_x, train_y), (test_x, test_y) = rings(100), rings(40, 1)
    found = mlp_probe(
        train_x.to(kinds[0]), train_y, test_x.to(kinds[1]), test_y, hidden=64, epochs=40, batch_size=32, lr=1e-2
    )
    assert found['top1'] > 85


def test_features_without_information_score_like_the_commonest_answer():
    (train_x, train_y), (test_x, test_y) = rings(), rings(100, 1)
    result = mlp_probe(torch.ones_like(train_x), train_y, torch.ones_like(test_x), test_y, hidden=8, epochs=30)
    assert result['top1'] == result['majority']


def test_depends_on_its_seed_alone():
    data = (*rings(), *rings(50, 1))
    options = dict(hidden=8, epochs=2)
    torch.manual_seed(0)
    first = mlp_probe(*data, **options)
    state = torch.get_rng_state()
    assert mlp_probe(*data, **options) == first
    assert torch.equal(torch.get_rng_state(), state)


class Colourful(torch.nn.Module):
    """h knows how far the channels are apart; the neck has forgotten it."""

    def extract(self, images, stage='backbone'):
        spread = images.float().std(1).mean((1, 2))[:, None]
        return torch.cat([spread, spread**2], 1) if stage == 'backbone' else torch.ones(len(images), 2)


def test_table_of_what_h_knows_and_g_has_forgotten(tmp_path):
    for k in range(80):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{k:02d}.png')
    source = dict(type='ImageFolder', root=str(tmp_path))
    cfg = dict(
        evaluation=dict(
            train=source, test=source, transform=dict(type='CenterView', resize=None, crop=6), num_workers=0
        ),
        data_preprocessor=dict(mean=[0.5] * 3),
    )
    (row,) = predict_transformations(cfg, {'ours': Colourful()}, ('grey', 'rotation'), hidden=16, epochs=30, lr=1e-2)
    assert row['name'] == 'ours'
    grey = row['scores']['grey']
    assert grey['h']['top1'] == 100
    assert grey['g(h)']['top1'] == grey['g(h)']['majority'] < 95
    assert set(row['scores']['rotation']) == {'h', 'g(h)'}
    one_channel = cfg | dict(data_preprocessor=dict(mean=[0.5]))
    assert predict_transformations(one_channel, {'ours': Colourful()}, ('grey',)) == [dict(name='ours', scores={})]
