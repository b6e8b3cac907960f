"""Features of a whole data set, and their clusters: PCA with whitening, then k-means, both of faiss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from mmkernel.distributed import gather_rows, on_first_process, rank, world_size
from mmkernel.losses.clustering import check_enough_samples


def features_of(model: nn.Module, dataset: Dataset, stage: str, batch_size: int, num_workers: int) -> Tensor:
    """``model.extract`` (eval mode, no gradient) of every image of an EvaluationDataset: (n, d) on every rank, on the CPU."""
    W = world_size()
    own = DistributedSampler(dataset, W, rank(), shuffle=False)  # every W-th, equally many: the last ones repeat
    loader = DataLoader(dataset, batch_size, sampler=own, num_workers=num_workers)
    rows = torch.cat([model.extract(batch['inputs'][0], stage=stage).float() for batch in loader])
    gathered = gather_rows(rows)  # rank by rank
    return gathered.view(W, -1, rows.shape[1]).transpose(0, 1).flatten(0, 1)[: len(dataset)].cpu()


def whitened_kmeans(features: np.ndarray, clusters: int, dim: int | None, iterations: int, seed: int) -> np.ndarray:
    """PCA to ``dim`` with whitening (None: without PCA), rows to the sphere, k-means without subsampling: (n, d) -> (n,) labels.

    Caron et al., Deep clustering for unsupervised learning of visual features, ECCV 2018. faiss splits a large cluster
    where one runs empty. ValueError for more clusters than rows or more components than dimensions or rows.
    """
    import faiss

    n, width = features.shape
    check_enough_samples(n, clusters)
    rows = np.ascontiguousarray(features, dtype=np.float32)
    if dim is not None:
        if dim > min(n, width):
            raise ValueError(
                f'pca_dim = {dim} components of {n} features of width {width}: at most {min(n, width)}. '
                'Set pca_dim of ClusterHook to less, or None for no PCA.'
            )
        pca = faiss.PCAMatrix(width, dim, -0.5)
        pca.train(rows)
        rows = pca.apply(rows)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    kmeans = faiss.Kmeans(rows.shape[1], clusters, niter=iterations, seed=seed, max_points_per_centroid=n)
    kmeans.cp.min_points_per_centroid = 1  # only silences a warning
    kmeans.train(rows)
    return kmeans.index.search(rows, 1)[1][:, 0]


def shared_labels(make: Callable[[], np.ndarray], device: torch.device) -> Tensor:
    """(n,) labels that ``make()`` returns on rank 0, on every rank alike, at ``device``; where it raises, all raise."""
    return torch.from_numpy(on_first_process(make)).long().to(device)
