"""SumHead: names, weights, widths and commits of its parts."""

import pytest
import torch

from mmkernel.engine.clocks import QueueHook, check_clocks
from mmkernel.models import Embeddings, JointEmbedding, SumHead, VarianceCovarianceHead
from mmkernel.registry import MODELS

PARTS = dict(
    moments=dict(type='VarianceCovarianceHead', variance_weight=3.0),
    information=dict(type='MutualInformationHead'),
    white=dict(type='WhiteningHead', sub_batch_size=10),
)


def embeddings():
    generator = torch.Generator().manual_seed(0)
    return Embeddings.from_views(*(torch.randn(20, 4, generator=generator) for _ in range(2)))


def test_parts_keep_their_values_under_prefixed_names():
    head = MODELS.build(dict(type='SumHead', heads=PARTS, in_dim=4))
    parts = head.loss(embeddings())
    own = VarianceCovarianceHead(variance_weight=3.0).loss(embeddings())
    torch.testing.assert_close(parts['loss_moments_variance'], own['loss_variance'])
    torch.testing.assert_close(parts['moments_variance'], own['variance'])
    assert {'loss_information_mutual_information', 'information_mutual_information', 'white_jitter'} <= set(parts)
    # mmengine sums every key that contains the word: none may hold it but the losses
    assert all(('loss' in name) == name.startswith('loss_') for name in parts)


def test_width_and_commit_reach_the_parts():
    model = JointEmbedding(
        backbone=dict(
            type='TIMMBackbone', model_name='resnet18', in_channels=1, layers=(1, 1, 1, 1), channels=(4, 4, 4, 4)
        ),
        neck=dict(type='MLPNeck', dims=(6,)),
        head=dict(type='SumHead', heads=PARTS),
    )
    assert model.head.heads['information'].critic.h[0].in_features == 6
    model.commit()
    assert model.head.heads['white'].steps == 1
    assert 'head.heads.white.steps' in model.state_dict()


def test_a_queue_inside_is_found_and_every_part_asked_once_about_the_batch(monkeypatch):
    codes = dict(type='SinkhornCodesHead', num_prototypes=8, queue_length=16)
    model = torch.nn.Module()
    model.head = MODELS.build(dict(type='SumHead', heads=dict(moments=PARTS['moments'], codes=codes), in_dim=4))
    with pytest.raises(ValueError, match='would never be used'):
        check_clocks(model, [], 8)
    with pytest.raises(ValueError, match='16'):
        check_clocks(model, [QueueHook()], 5)
    asked = []
    for part in [part for part in model.modules() if hasattr(part, 'check_batch')]:
        monkeypatch.setattr(
            part, 'check_batch', lambda rows, part=part: (asked.append(part), type(part).check_batch(part, rows))
        )
    check_clocks(model, [QueueHook()], 8)
    assert asked == [model.head.heads['codes'], model.head.heads['codes'].queue]


def test_bad_names():
    with pytest.raises(ValueError, match='cannot name a head'):
        SumHead(dict(closs=VarianceCovarianceHead()))
    with pytest.raises(ValueError, match='got none'):
        SumHead({})


def test_a_list_of_heads_has_no_names():
    with pytest.raises(ValueError, match='heads is a dict that names.*got a list'):
        SumHead([VarianceCovarianceHead()])
