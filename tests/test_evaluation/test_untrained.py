import pytest
import torch
from torch import nn

from mmkernel.evaluation.checkpoint_selection import UntrainedError, check_trained, untrained_signs
from mmkernel.registry import MODELS


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
