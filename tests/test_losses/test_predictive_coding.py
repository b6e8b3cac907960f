"""Grid InfoNCE against the sum written out."""

import math

import pytest
import torch

from mmkernel.losses.predictive_coding import DIRECTIONS, candidates, orient, own_positions, prediction_loss


def test_orientations_put_what_is_predicted_below():
    grid = torch.arange(6).view(1, 2, 3)
    ahead = {d: orient(grid, d)[0, 0].tolist() for d in DIRECTIONS}  # the row from which all others are predicted
    assert ahead == {'down': [0, 1, 2], 'up': [3, 4, 5], 'right': [0, 3], 'left': [2, 5]}


def test_loss_is_the_sum_written_out():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=generator)
    c = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=generator)
    W = torch.randn(2, 4, 4, dtype=torch.float64, generator=generator)
    predictions = [c[:, :-k] @ W[k - 1].T for k in (1, 2)]
    positives = [own_positions(z)[:, k:] for k in (1, 2)]
    loss, accuracy, information = prediction_loss(predictions, candidates(z), positives)
    terms, hits = [], []
    for b in range(2):
        for k in (1, 2):
            for i in range(3 - k):
                for j in range(2):
                    scores = {
                        (n, r, s): float(z[n, r, s] @ W[k - 1] @ c[b, i, j])
                        for n in range(2) for r in range(3) for s in range(2)
                    }  # fmt: skip
                    terms.append(math.log(sum(math.exp(s) for s in scores.values())) - scores[b, i + k, j])
                    hits.append(max(scores, key=scores.get) == (b, i + k, j))
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert accuracy.item() == pytest.approx(sum(hits) / len(hits))
    assert information.item() == pytest.approx(math.log(12) - loss.item(), rel=1e-12)
