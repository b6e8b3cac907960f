"""Cluster labels: values, centroids and gradients of the authors' code; empty clusters; N processes as one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from launches import Launches
from multiprocess import run_processes

from mmkernel.losses import clustering
from mmkernel.losses.clustering import UNSEEN, cluster_accuracy, cluster_cross_entropy, spherical_kmeans


def golden_clusters(golden, dtype=torch.float64):
    g = golden('deepclusterv2_K5_2view')
    rows = torch.from_numpy(g['in_memory_embeddings'][0]).to(dtype)
    start = rows[g['in_init_index0']]
    return g, *spherical_kmeans(rows, start, int(g['hp_kmeans_iters']))


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_kmeans(golden, dtype, tolerance):
    g, centroids, labels = golden_clusters(golden, dtype)
    by_image = np.full(60, UNSEEN)
    by_image[g['in_memory_index']] = labels.numpy()
    assert np.array_equal(by_image, g['out_assignments'][0])
    assert np.abs(centroids.numpy() - g['out_centroids0']).max() <= tolerance


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_cross_entropy(golden, dtype, tolerance):
    g, centroids, _ = golden_clusters(golden, dtype)
    z = torch.from_numpy(g['in_embedding']).to(dtype).requires_grad_()
    scores = (z @ centroids.T).view(2, 16, 5)
    scores.retain_grad()
    labels = torch.from_numpy(g['out_assignments'][0][g['in_batch_index']])
    loss = cluster_cross_entropy(scores / float(g['hp_temperature']), labels)
    loss.backward()
    assert loss.item() == pytest.approx(float(g['out_loss']), rel=tolerance)
    for ours, theirs in ((z.grad, g['grad_embedding']), (scores.grad.view(32, 5), g['grad_scores0'])):
        assert np.abs(ours.numpy() - theirs).max() <= 10 * tolerance * np.abs(theirs).max()


def test_an_empty_cluster_keeps_its_centroid():
    rows = F.normalize(torch.tensor([[1.0, 0.1], [1.0, -0.1], [0.1, 1.0]]), dim=1)
    lonely = torch.tensor([-1.0, 0.0])
    centroids, labels = spherical_kmeans(rows, torch.stack([rows[0], rows[2], lonely]))
    assert torch.equal(centroids[2], lonely)
    assert labels.tolist() == [0, 0, 1]
    torch.testing.assert_close(centroids[0], torch.tensor([1.0, 0.0]))


def test_images_without_label_do_not_count():
    scores = torch.randn(2, 4, 3)
    labels = torch.tensor([0, UNSEEN, 2, UNSEEN])
    kept = [0, 2]
    expected = F.cross_entropy(scores[:, kept].flatten(0, 1), labels[kept].repeat(2))
    torch.testing.assert_close(cluster_cross_entropy(scores, labels), expected)
    nobody = torch.full((4,), UNSEEN)
    assert cluster_cross_entropy(scores, nobody).item() == 0
    assert cluster_accuracy(scores, nobody).item() == 0


def test_more_clusters_than_samples():
    with pytest.raises(ValueError, match='5 clusters of 3 samples'):
        spherical_kmeans(torch.eye(3), torch.randn(5, 3))


def blobs():
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(41, 6, dtype=torch.float64, generator=generator), dim=1)


def kmeans_on_rank(rank, world_size):
    return spherical_kmeans(blobs(), blobs()[:7])


def test_ranks_share_the_work():
    expected = spherical_kmeans(blobs(), blobs()[:7])
    for centroids, labels in run_processes(kmeans_on_rank, 3):
        torch.testing.assert_close(centroids, expected[0], rtol=0, atol=1e-14)
        assert torch.equal(labels, expected[1])


def test_kmeans_makes_one_matrix_of_scores_a_block_and_no_int64(monkeypatch):
    rows = F.normalize(torch.randn(640, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    expected = spherical_kmeans(rows, rows[:100], 3)
    with Launches() as launches:
        spherical_kmeans(rows, rows[:100], 3)
    assert launches.largest == 640 * 100 * 4  # scores in float32; one-hot labels in int64 were twice that
    monkeypatch.setattr(clustering, 'rows_at_a_time', lambda columns, like: 50)
    with Launches() as launches:
        blocks = spherical_kmeans(rows, rows[:100], 3)
    assert launches.largest <= 50 * 100 * 4
    assert torch.equal(blocks[1], expected[1])
    torch.testing.assert_close(blocks[0], expected[0])
