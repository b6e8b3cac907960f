"""Scores without labels: what each orders by, Spearman against scipy, and the errors."""

import math

import pytest
import torch
from scipy.stats import spearmanr

from mmkernel.engine import load_config
from mmkernel.evaluation import (
    CRITERIA,
    checkpoint_statistics,
    criterion_score,
    rank_correlation,
    regret,
    untrained_encoder,
)

SMALL = {'model.backbone.channels': (4, 4, 4, 8), 'model.neck.dims': (8, 8)}


@pytest.fixture(scope='module')
def statistics(repository_configs):
    cfg = load_config(repository_configs / 'sfrik/digits_L3.py', SMALL)
    return checkpoint_statistics(untrained_encoder(cfg), cfg, images=50)


@pytest.fixture(scope='module')
def repository_configs(request):
    return request.config.rootpath / 'configs'


def test_every_criterion_scores_and_the_answer_is_the_same_twice(statistics, repository_configs):
    cfg = load_config(repository_configs / 'sfrik/digits_L3.py', SMALL)
    torch.manual_seed(99)
    again = checkpoint_statistics(untrained_encoder(cfg), cfg, images=50)
    assert again == statistics
    for criterion in CRITERIA:
        assert isinstance(criterion_score(criterion, statistics), float)
    assert criterion_score('rank', statistics) == statistics['rank']
    assert criterion_score('mmd2', statistics) == -statistics['mmd2']
    both = statistics['alignment'] + statistics['uniformity']
    assert criterion_score('alignment_uniformity', statistics) == -both


def test_patches_have_no_alignment(repository_configs):
    cfg = load_config(repository_configs / 'cpc/digits_v1.py', {**SMALL, 'model.neck.dims': (8,)})
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


def test_an_encoder_that_diverged_has_statistics_of_nan(statistics, repository_configs):
    cfg = load_config(repository_configs / 'sfrik/digits_L3.py', SMALL)
    model = untrained_encoder(cfg)
    model.extract = lambda images, stage: torch.full((len(images), 8), torch.inf)
    found = checkpoint_statistics(model, cfg, images=20)
    for criterion in CRITERIA:
        assert math.isnan(criterion_score(criterion, found))
