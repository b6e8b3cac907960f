"""Among the first k: whatever the numbers of classes, and never without a reason."""

import pytest
import torch

from mmkernel.evaluation import linear_probe, linear_sweep, logistic_regression, weighted_knn
from mmkernel.evaluation.classifier_metrics import OneClassMetrics
from mmkernel.evaluation.linear import score_heads
from mmkernel.evaluation.metrics import label_ranks
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
    judge.add(renumbered, dict(label=number[y], sample_index=torch.arange(60)))
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
