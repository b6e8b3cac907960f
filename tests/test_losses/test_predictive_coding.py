"""Grid InfoNCE against the sum written out."""

import math

import pytest
import torch
from launches import Launches, kept_for_backward

from mmkernel.losses import predictive_coding
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


def test_logits_are_neither_kept_nor_made_at_once(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(3, 32, 4, dtype=torch.float64, generator=generator)  # three steps
    z = torch.randn(48, 4, dtype=torch.float64, generator=generator)
    y = torch.randint(48, (3, 32), generator=generator)

    def outcome():
        p_, z_ = p.clone().requires_grad_(), z.clone().requires_grad_()
        with Launches() as launches, kept_for_backward() as kept:
            parts = prediction_loss(list(p_), z_, list(y))
            parts[0].backward()
        return launches.largest, sum(kept), [*(x.detach() for x in parts), p_.grad, z_.grad]

    logits = 96 * 48 * 8
    largest, kept, whole = outcome()
    assert largest == logits
    assert kept <= 2 * (p.numel() + z.numel()) * 8
    monkeypatch.setattr(predictive_coding, 'rows_at_a_time', lambda columns, like: 7)
    largest, _, blocks = outcome()
    assert largest <= logits / 6
    torch.testing.assert_close(blocks, whole)
    expected = torch.nn.functional.cross_entropy(p.flatten(0, 1) @ z.T, y.flatten())
    torch.testing.assert_close(whole[0], expected)


def test_gradients(monkeypatch):
    monkeypatch.setattr(predictive_coding, 'rows_at_a_time', lambda columns, like: 3)
    p, z = (
        torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True),
        torch.randn(5, 4, dtype=torch.float64).requires_grad_(),
    )
    y = torch.randint(5, (2, 7))
    assert torch.autograd.gradcheck(lambda p, z: prediction_loss(list(p), z, list(y))[0], (p, z))
    assert torch.autograd.gradcheck(lambda p: prediction_loss(list(p), z.detach(), list(y))[0], p)
