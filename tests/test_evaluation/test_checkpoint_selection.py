"""Scores without labels: what each orders by, Spearman against scipy, and the errors; signs of weights never trained."""

import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from mmkernel.engine import load_config
from mmkernel.evaluation import (
    CRITERIA,
    checkpoint_statistics,
    criterion_score,
    rank_correlation,
    regret,
    untrained_encoder,
)
from mmkernel.evaluation.checkpoint_selection import UntrainedError, check_trained, untrained_signs
from mmkernel.registry import MODELS

SMALL = {'model.backbone.channels': (4, 4, 4, 8), 'model.neck.dims': (8, 8)}


@pytest.fixture(scope='module')
def cfg(repository):
    return load_config(repository / 'configs/sfrik/digits_L3.py', SMALL)


@pytest.fixture(scope='module')
def statistics(cfg):
    return checkpoint_statistics(untrained_encoder(cfg), cfg, images=50)


def test_every_criterion_scores_and_the_answer_is_the_same_twice(statistics, cfg):
    torch.manual_seed(99)
    again = checkpoint_statistics(untrained_encoder(cfg), cfg, images=50)
    assert again == statistics
    for criterion in CRITERIA:
        assert isinstance(criterion_score(criterion, statistics), float)
    assert criterion_score('rank', statistics) == statistics['rank']
    assert criterion_score('mmd2', statistics) == -statistics['mmd2']
    both = statistics['alignment'] + statistics['uniformity']
    assert criterion_score('alignment_uniformity', statistics) == -both


def test_patches_have_no_alignment(repository):
    cfg = load_config(repository / 'configs/cpc/digits_v1.py', {**SMALL, 'model.neck.dims': (8,)})
    found = checkpoint_statistics(untrained_encoder(cfg), cfg, images=20)
    assert criterion_score('rank', found) > 0
    with pytest.raises(ValueError, match="Use 'rank'"):
        criterion_score('alignment_uniformity', found)


def test_unknown_criterion(statistics):
    with pytest.raises(KeyError, match='expected one of rank'):
        criterion_score('loss', statistics)


def test_spearman_with_ties():
    a, b = [1.0, 2.0, 2.0, 5.0, 3.0], [10.0, 30.0, 20.0, 20.0, 50.0]
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None
    with pytest.raises(ValueError, match='2 scores and 3 accuracies'):
        rank_correlation([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match='at least 3 checkpoints'):
        rank_correlation([1, 2], [1, 2])


def test_regret():
    assert regret([1, 3, 2], [90.0, 95.0, 97.0]) == 2.0
    assert regret([1, 2, 3], [90.0, 95.0, 97.0]) == 0.0


def test_a_score_of_nan_is_the_worst():
    nan = float('nan')
    assert regret([nan, 3, 2], [99.0, 95.0, 97.0]) == 4.0
    assert rank_correlation([nan, 1, 2], [10, 20, 30]) == pytest.approx(1)
    assert rank_correlation([1, 2, nan], [30, 20, 10]) == pytest.approx(0.5)
    for judge in (regret, rank_correlation):
        with pytest.raises(ValueError, match='1 of 3 accuracies are NaN'):
            judge([1, 2, 3], [90.0, nan, 95.0])


def test_an_encoder_that_diverged_has_statistics_of_nan(cfg):
    model = untrained_encoder(cfg)
    model.extract = lambda images, stage: torch.full((len(images), 8), torch.inf)
    found = checkpoint_statistics(model, cfg, images=20)
    for criterion in CRITERIA:
        assert math.isnan(criterion_score(criterion, found))


def model(head=None, batches=1):
    net = nn.Module()
    net.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    net.head = head
    for _ in range(batches):
        net.backbone(torch.randn(8, 4))
    return net


def test_a_trained_model_passes():
    check_trained(model(), dict(epoch=20, iter=220))
    check_trained(nn.Linear(2, 2))  # nothing to tell it by
    assert untrained_signs(model(), dict(epoch=20, iter=220)) == []


def test_position_in_the_run():
    with pytest.raises(UntrainedError, match="'epoch_0.pth' was never trained: it was written at epoch 0, step 0"):
        check_trained(model(), dict(epoch=0, iter=0), 'epoch_0.pth')


def test_batch_norms_that_saw_nothing():
    with pytest.raises(UntrainedError, match='none of its 1 batch norms has seen a batch'):
        check_trained(model(batches=0))


def test_a_queue_at_its_start_values():
    head = nn.Module()
    head.queue = MODELS.build(dict(type='FeatureQueue', length=8, dim=4))
    assert untrained_signs(model(head), {}) == ["the queue 'head.queue' holds its start values"]
    head.queue.enqueue(torch.randn(1, 4, 4))
    assert untrained_signs(model(head), {}) == []
    waiting = nn.Module()
    waiting.queue = MODELS.build(dict(type='FeatureQueue', length=8, dim=4, enabled=False))
    assert untrained_signs(model(waiting), {}) == []  # it starts in a later epoch


def test_no_cluster_labels():
    head = MODELS.build(dict(type='ClusterHead', num_clusters=(3,), in_dim=4))
    head.prepare(10)
    assert untrained_signs(model(head), {}) == ["no image has a cluster label in 'head.pseudo'"]
    head.pseudo.set(0, torch.arange(10), torch.zeros(10, dtype=torch.long))
    assert untrained_signs(model(head), {}) == []


def test_a_classifier_at_its_initial_values():
    linear = nn.Linear(64, 10)
    nn.init.normal_(linear.weight, 0, 0.01)
    nn.init.zeros_(linear.bias)
    with pytest.raises(UntrainedError, match="the classifier 'head' holds its initial values"):
        check_trained(model(linear))
    loss = nn.functional.cross_entropy(linear(torch.randn(8, 64)), torch.arange(8))
    loss.backward()
    torch.optim.SGD(linear.parameters(), 0.1).step()
    check_trained(model(linear))
