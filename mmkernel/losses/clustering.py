"""Clusters as targets: hard labels by spherical k-means, soft ones by Sinkhorn iterations, over the rows of all ranks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.distributed import global_mean, max_over_ranks, rank, sum_over_ranks, sum_over_ranks_, world_size
from mmkernel.kernels.engine import Pairs
from mmkernel.kernels.layouts import rows_at_a_time
from mmkernel.losses.alignment import compared_pairs
from mmkernel.losses.precision import full_precision

UNSEEN = -100  # label of an image that was not clustered; ignored by the loss


@full_precision
def cluster_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """mean over labelled rows of -log softmax(scores)[label], the mean being that of the rows of all ranks.

    ``scores``: (V, B, K); ``labels``: (B,), the same for every view, -100 for images without one. 0 where no row has one.
    """
    repeated = labels.expand(scores.shape[:2]).flatten()
    total = F.cross_entropy(scores.flatten(0, 1), repeated, ignore_index=UNSEEN, reduction='sum')
    labelled = sum_over_ranks_((repeated != UNSEEN).sum()).clamp(min=1)
    return global_mean(total * world_size() / labelled)


@torch.no_grad()
def cluster_accuracy(scores: Tensor, labels: Tensor) -> Tensor:
    """Fraction of labelled rows, of all ranks, whose highest score is that of their label; shapes as above."""
    labelled = (labels != UNSEEN).expand(scores.shape[:2])
    right = (scores.argmax(-1) == labels) & labelled
    count = sum_over_ranks_(torch.stack([right.sum(), labelled.sum()]).to(scores.dtype))
    return count[0] / count[1].clamp(min=1)


@full_precision
@torch.no_grad()
def spherical_kmeans(rows: Tensor, centroids: Tensor, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """``iterations`` times: label = argmax_k z.c_k, c_k = normalised mean of its rows; then the labels once more.

    Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020 (its
    DeepCluster-v2). An empty cluster keeps its centroid.

    ``rows``: (n, q) on the sphere, the same on all ranks, which share the work; ``centroids``: (K, q), initial ones.
    Returns (centroids (K, q), labels (n,)), the same on all ranks. ValueError if K > n.
    """
    n, K = rows.shape[0], centroids.shape[0]
    check_enough_samples(n, K)
    first, last = n * rank() // world_size(), n * (rank() + 1) // world_size()
    own, at_a_time = rows[first:last], rows_at_a_time(K, rows)
    for _ in range(iterations):
        sums, counts = torch.zeros_like(centroids), rows.new_zeros(K)
        for block in own.split(at_a_time):
            scores = block @ centroids.T
            nearest = scores.argmax(1, keepdim=True)
            member = scores.zero_().scatter_(1, nearest, 1)  # in the memory of the scores
            sums.addmm_(member.T, block)  # a product instead of index_add: the same order of summation on any device
            counts += member.sum(0)
        sums, counts = sum_over_ranks_(sums), sum_over_ranks_(counts)
        means = torch.where(counts[:, None] > 0, sums / counts[:, None].clamp(min=1), centroids)
        centroids = F.normalize(means, dim=1)
    labels = torch.zeros(n, dtype=torch.long, device=rows.device)
    if len(own):
        labels[first:last] = torch.cat([(block @ centroids.T).argmax(1) for block in own.split(at_a_time)])
    return centroids, sum_over_ranks_(labels)


def random_rows(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` different rows, drawn by rank 0 from a CPU generator, on every rank. ValueError if there are fewer."""
    check_enough_samples(len(rows), count)
    chosen = rows[torch.randperm(len(rows), generator=generator)[:count].to(rows.device)]
    return sum_over_ranks(chosen if rank() == 0 else torch.zeros_like(chosen))


def check_enough_samples(samples: int, clusters: int) -> None:
    """ValueError if there are more clusters than samples."""
    if clusters > samples:
        raise ValueError(
            f'{clusters} clusters of {samples} samples: each needs at least one. Make head.num_clusters smaller, such as '
            f'--cfg-options model.head.num_clusters=[{max(samples // 10, 2)}], or check that the data are complete (images that '
            'drop_last leaves out of an epoch are not clustered).'
        )


@full_precision
@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3, last: int | None = None) -> Tensor:
    """codes = diag(u) exp(scores / epsilon) diag(v), u and v from ``iterations`` rounds: prototype sums 1/K, then row sums 1.

    Cuturi, NeurIPS 2013; Caron et al., NeurIPS 2020. No gradient. Two matrix-vector products a round and one matrix in
    memory; prototype sums run over the rows of all ranks.

    exp is taken of ``scores - a_b - c_k`` with the largest score a_b of each row and then c_k of each prototype, so that each
    row and prototype keeps an entry 1 at any epsilon. A few rounds do not converge, so the result depends on where they
    start: the shift of the rows goes into the first u (only its common factor, the global maximum, cancels).

    Args:
        scores: (..., B, K), this rank's rows; leading axes, such as views, are assigned each by itself.
        epsilon: weight of the entropy.
        last: codes of the last ``last`` rows only (a queue may precede them); None: of all.

    Returns:
        (..., B or ``last``, K), each row summing to 1.
    """
    if iterations < 1 or epsilon <= 0:
        raise ValueError(f'sinkhorn needs epsilon > 0 and iterations >= 1, got {epsilon} and {iterations}.')
    least = torch.finfo(scores.dtype).tiny ** 0.8
    row = scores.amax(-1, keepdim=True)  # (..., B, 1) a_b
    M = torch.sub(scores, row)  # (..., B, K), the one matrix: a second would cost more than all the arithmetic
    M.div_(epsilon)
    M.sub_(max_over_ranks(M.amax(-2, keepdim=True))).exp_()
    u = ((row - max_over_ranks(row.amax(-2, keepdim=True))) / epsilon).exp_()  # (..., B, 1)
    for _ in range(iterations):
        v = sum_over_ranks_(M.mT @ u).clamp_min_(least).reciprocal_()  # (..., K, 1)
        u = (M @ v).clamp_min_(least).reciprocal_()
    kept = slice(None) if last is None else slice(M.shape[-2] - last, None)
    return M[..., kept, :].mul_(v.mT).mul_(u[..., kept, :])


@full_precision
def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float, pairs: Pairs | None = None) -> Tensor:
    """mean_(i,j) mean_n -sum_k codes_jnk log softmax_k(scores_in / T) over this rank's rows. Caron et al., NeurIPS 2020.

    ``scores``: (V, B, K), ``codes``: (G, B, K).
    """
    pairs = compared_pairs(scores, codes, pairs, ordered=True)
    log_probability = (scores / temperature).log_softmax(-1)
    sums: dict[tuple[int, ...], Tensor] = {}  # of the codes that a view predicts; most views predict the same ones
    for i in range(len(scores)):
        predicted = tuple(j for k, j in pairs if k == i)
        if predicted not in sums:
            sums[predicted] = sum((codes[j] for j in predicted[1:]), codes[predicted[0]]) if predicted else 0 * codes[0]
    targets = torch.stack([sums[tuple(j for k, j in pairs if k == i)] for i in range(len(scores))])
    return (targets * log_probability).sum() / (-len(pairs) * scores.shape[1])
