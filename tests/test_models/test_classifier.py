"""The classifier of the benchmarks: what is frozen stays, the head starts as published, bad batches are refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmkernel.models import Classifier


class Backbone(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(12, 6), nn.BatchNorm1d(6), nn.ReLU())
        self.out_dim = 6


def model(**kwargs):
    torch.manual_seed(0)
    return Classifier(Backbone(), **{'num_classes': 5, **kwargs})


IMAGES, LABELS = torch.randn(8, 3, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 5


def step(classifier):
    optimizer = torch.optim.SGD([p for p in classifier.parameters() if p.requires_grad], lr=0.1)
    classifier.train()
    classifier(inputs=[IMAGES], label=LABELS)['loss_classification'].backward()
    optimizer.step()


@pytest.mark.parametrize('frozen', [True, False])
def test_a_frozen_backbone_keeps_weights_and_statistics(frozen):
    classifier = model(frozen=frozen)
    before = {key: value.clone() for key, value in classifier.state_dict().items()}
    step(classifier)
    same = {key for key, value in classifier.state_dict().items() if torch.equal(value, before[key])}
    backbone = {key for key in before if key.startswith('backbone.')}
    assert ('head.weight' in same, 'head.bias' in same) == (False, False)
    assert (backbone <= same) is frozen
    assert classifier.backbone.training is not frozen
    if not frozen:
        assert backbone & same <= {'backbone.1.bias'}  # the norm after it takes its gradient away


def test_fine_tuning_trains_what_pretraining_held_fixed():
    vit = dict(
        type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=16, patch_size=8, embed_dim=12, num_heads=2,
        depth=1, fixed_positions=True, fixed_patches=True,
    )  # fmt: skip
    assert all(p.requires_grad for p in Classifier(vit, num_classes=3, frozen=False).parameters())
    assert not any(p.requires_grad for p in Classifier(vit, num_classes=3).backbone.parameters())


def test_head_starts_small_and_loss_is_cross_entropy():
    classifier = model(num_classes=500)
    assert classifier.head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert (classifier.head.bias == 0).all()
    assert (model(head_std=0.0).head.weight == 0).all()
    classifier = model()
    found = classifier(inputs=[IMAGES], label=LABELS)
    logits = classifier(inputs=[IMAGES], mode='tensor')
    assert found['loss_classification'].item() == pytest.approx(F.cross_entropy(logits, LABELS).item())
    assert found['top1'].item() == pytest.approx(100 * (logits.argmax(1) == LABELS).float().mean().item())
    torch.testing.assert_close(classifier.extract(IMAGES, stage='head'), logits)  # frozen: eval mode in training too


def test_a_norm_before_the_head_learns_its_statistics_on_a_frozen_backbone():
    classifier = model(head_norm=dict(type='BN', affine=False))
    assert [name for name, p in classifier.named_parameters() if p.requires_grad] == ['head.weight', 'head.bias']
    features = classifier.extract(IMAGES)
    centred = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    found = classifier(inputs=[IMAGES], mode='tensor')
    torch.testing.assert_close(found, F.linear(centred, classifier.head.weight, classifier.head.bias))
    torch.testing.assert_close(classifier.head.norm.running_mean, 0.1 * features.mean(0))  # from 0
    classifier.eval()
    torch.testing.assert_close(classifier.extract(IMAGES, stage='head'), classifier(inputs=[IMAGES], mode='tensor'))


def test_a_head_may_be_drawn_as_torch_draws_it():
    drawn = model(head_std=None).head
    assert 0.2 < drawn.weight.abs().max() < 6**-0.5  # uniform within 1 / sqrt(in_dim)
    assert 0 < drawn.bias.abs().max() < 6**-0.5


def test_extract_restores_modes():
    classifier = model(frozen=False).train()
    assert classifier.extract(IMAGES).shape == (8, 6)
    assert classifier.training
    assert classifier.backbone.training
    frozen = model().train()
    frozen.extract(IMAGES, stage='head')
    assert frozen.training
    assert not frozen.backbone.training
    with pytest.raises(ValueError, match="stage is 'backbone' or 'head'"):
        classifier.extract(IMAGES, stage='neck')


def test_norm_momentum_is_the_fraction_kept():
    classifier = model(frozen=False, norm_momentum=0.96)
    assert classifier.backbone[2].momentum == pytest.approx(0.04)
    with pytest.raises(ValueError, match='the fraction kept'):
        model(norm_momentum=1.0)


def test_bad_input():
    with pytest.raises(ValueError, match='trains on one view of an image, the batch has 2'):
        model()(inputs=[IMAGES, IMAGES], label=LABELS)
    with pytest.raises(ValueError, match='num_classes=1; expected .*>= 2'):
        model(num_classes=1)
    with pytest.raises(ValueError, match="mode is 'loss' or 'tensor'"):
        model()(inputs=[IMAGES], label=LABELS, mode='predict')


def test_counts_real_steps():
    classifier = model()
    classifier.commit()
    assert classifier.state_dict()['steps'] == 1
