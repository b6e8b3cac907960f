"""ClusterHead: memory, labels, centroids, and what goes wrong."""

import pytest
import torch
import torch.nn.functional as F
from multiprocess import run_processes

from mmkernel.losses.clustering import UNSEEN
from mmkernel.models import ClusterHead, Embeddings


def head(n=20, **options):
    head = ClusterHead(**{**dict(num_clusters=(3, 4), in_dim=6), **options}).double()
    head.prepare(n)
    return head


def embeddings(index, seed=0, views=2):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(views, len(index), 6, dtype=torch.float64, generator=generator)
    return Embeddings.from_views(*z, sample_index=torch.as_tensor(index))


def test_memory_as_in_the_authors_code(golden, device):
    arrays = golden('deepclusterv2_K5_2view')
    g = {name: torch.from_numpy(a).to(device) for name, a in arrays.items() if a.dtype.kind in 'bif'}
    ours = ClusterHead((5,), in_dim=16).to(device, torch.float64)
    ours.prepare(60)
    rows, index, batch = g['in_memory_embeddings'], g['in_memory_index'], g['in_batch_index']
    ours.memory.write(index, rows)
    ours.pseudo.set(0, torch.arange(60, device=device), g['out_assignments'][0])
    ours.classifiers[0].weight.data = g['out_centroids0']
    parts = ours.loss(Embeddings.from_views(*g['in_embedding'].view(2, 16, 16), sample_index=batch))
    assert parts['loss_cluster'].item() == pytest.approx(g['out_loss'].item(), rel=1e-9)
    assert torch.equal(ours.memory.data[:, index], rows)  # loss is pure
    ours.commit()
    position = g['out_memory_index'].tolist()
    for i in batch.tolist():
        expected = g['out_memory_embeddings'][:, position.index(i)]
        assert (ours.memory.data[:, i] - expected).abs().max() < 1e-12


def test_clusters_of_the_memory_become_labels_and_classifiers():
    ours = head()
    ours.remember(embeddings(range(15)))
    ours.cluster(torch.Generator().manual_seed(0))
    labels = ours.pseudo.labels
    assert torch.equal((labels == UNSEEN).any(0), torch.arange(20) >= 15)  # left out of the epoch: no label
    z = F.normalize(embeddings(range(15)).online, dim=-1)
    for h, classifier in enumerate(ours.classifiers):
        assert not classifier.weight.requires_grad
        assert torch.equal((z[h] @ classifier.weight.T).argmax(1), labels[h, :15])
    assert not ours.memory.seen.any()
    parts = ours.loss(embeddings([3, 18, 4]))
    assert parts['loss_cluster'] > 0
    ours.commit()
    assert ours.memory.index().tolist() == [3, 4, 18]


def test_accumulated_batches_are_all_remembered():
    ours = head(classifier='centroids')
    ours.pseudo.set(0, torch.arange(20), torch.zeros(20, dtype=torch.long))
    ours.loss(embeddings([1, 2]))
    ours.loss(embeddings([3, 4]))
    with torch.no_grad():
        ours.loss(embeddings([5, 6]))  # a monitor's look is not a step
    assert not ours.memory.seen.any()
    ours.commit()
    assert ours.memory.index().tolist() == [1, 2, 3, 4]


def test_learned_classifiers():
    ours = head(classifier='linear', normalize=False, num_clusters=(3,))
    ours.pseudo.set(0, torch.arange(20), torch.arange(20) % 3)
    batch = embeddings(range(8), views=1)
    ours.loss(batch)['loss_cluster'].backward()
    assert ours.classifiers[0].weight.grad.abs().max() > 0
    before = ours.classifiers[0].weight.clone()
    ours.classifiers[0].bias.data.fill_(1)
    ours.reset_classifiers(torch.Generator().manual_seed(5))
    assert not torch.equal(ours.classifiers[0].weight, before)
    assert ours.classifiers[0].weight.std() < 0.02
    assert not ours.classifiers[0].bias.any()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_clusters=()), 'num_clusters=nothing'),
        (dict(num_clusters=(3, 1)), 'num_clusters=1; expected .*>= 2'),
        (dict(in_dim=None), 'in_dim'),
        (dict(classifier='mean'), "'centroids'.*or 'linear'"),
        (dict(normalize=False), 'live on the sphere'),
        (dict(num_clusters=(30,)), '30 clusters of 20 samples'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        head(**options)


def test_fewer_images_seen_than_clusters():
    ours = head()
    ours.remember(embeddings([1, 2]))
    with pytest.raises(ValueError, match='3 clusters of 2 samples'):
        ours.cluster(torch.Generator())


def test_a_head_without_its_hook():
    with pytest.raises(ValueError, match='no hook makes clusters.*ClusterHook'):
        ClusterHead((3,), in_dim=6).double().loss(embeddings([0, 1]))


def test_an_image_beyond_the_data_set():
    with pytest.raises((IndexError, RuntimeError), match='out of'):
        head().loss(embeddings([3, 20]))


def test_fewer_views_than_are_remembered():
    ours = head()
    with pytest.raises(ValueError, match='there are 1 online views'):
        ours.remember(embeddings(range(5), views=1))


def clustered(rank, world_size):
    """Each rank remembers its share of the images; then all cluster."""
    ours = head()
    images = torch.randperm(18, generator=torch.Generator().manual_seed(2))
    own = images.chunk(world_size)[rank]
    ours.remember(Embeddings.from_views(*embeddings(range(20)).online[:, own], sample_index=own))
    ours.cluster(torch.Generator().manual_seed(3 + rank))  # the start is rank 0's
    return ours.state_dict()


def test_clusters_of_two_processes_are_those_of_one():
    expected = clustered(0, 1)
    for state in run_processes(clustered, 2):
        for key, value in expected.items():
            torch.testing.assert_close(state[key], value, rtol=0, atol=1e-13, msg=key)
