"""What classifiers minimise: against the formula, with what must not count, and the same on W processes."""

import math

import pytest
import torch
from torch import nn

from mmkernel.models import Classifier, SeveralClasses

TARGETS = torch.tensor([[1, 0, -1], [0, 0, 1], [-1, 1, -1], [1, 1, 0]], dtype=torch.int8)


def logits(seed=0):
    return torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_one_logistic_regression_per_class():
    z = logits()
    total = right = 0
    for row, target in zip(z.tolist(), TARGETS.tolist(), strict=True):
        for value, there in zip(row, target, strict=True):
            if there >= 0:
                total += math.log1p(math.exp(-value if there else value))
                right += (value > 0) == bool(there)
    found = SeveralClasses()(z, TARGETS)
    assert found['loss_classification'].item() == pytest.approx(total / 4, rel=1e-6)
    assert found['right'].item() == pytest.approx(100 * right / 9)


def test_difficult_ones_cost_nothing():
    z = logits().requires_grad_()
    SeveralClasses()(z, TARGETS)['loss_classification'].backward()
    assert torch.equal(z.grad == 0, TARGETS == -1)
    alone = SeveralClasses()(z.detach(), torch.full_like(TARGETS, -1))
    assert (alone['loss_classification'], alone['right']) == (0, 0)


def test_the_mean_over_processes_is_the_loss_of_the_union():
    """The halves have different numbers of entries that count."""
    z = logits()
    halves = [SeveralClasses()(z[k : k + 2], TARGETS[k : k + 2])['loss_classification'] for k in (0, 2)]
    torch.testing.assert_close(sum(halves) / 2, SeveralClasses()(z, TARGETS)['loss_classification'])


def classifier(**kwargs):
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 6))
    backbone.out_dim = 6
    return Classifier(backbone, num_classes=3, **kwargs)


def test_a_classifier_of_several_classes():
    model = classifier(objective=dict(type='SeveralClasses'))
    assert model.state_dict().keys() == classifier().state_dict().keys()  # an objective has no state
    images, label = [torch.randn(4, 3, 2, 2)], torch.full((4,), -1)
    found = model(inputs=images, label=label, targets=TARGETS)
    assert found['loss_classification'].item() == pytest.approx(9 / 4 * math.log(2), rel=0.2)  # logits near 0
    found['loss_classification'].backward()
    assert model.head.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r'SeveralClasses needs the targets of a batch.*VOC2007'):
        model(inputs=images, label=label)
    with pytest.raises(ValueError, match=r'shape \(4, 2\), logits \(4, 3\): set model\.num_classes to the 2 classes'):
        model(inputs=images, targets=TARGETS[:, :2])
    with pytest.raises(ValueError, match='OneClass needs the label of a batch'):
        classifier()(inputs=images, targets=TARGETS)
