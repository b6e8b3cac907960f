"""The hook that clusters features: once before the first epoch, then at the end of epochs."""

from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook

from mmkernel.checks import check_numbers
from mmkernel.datasets import EvaluationDataset
from mmkernel.distributed import gather_rows, on_first_process, rank, world_size
from mmkernel.engine.hooks import dataset_of, unwrap
from mmkernel.evaluation import extract_features
from mmkernel.losses.clustering import check_enough_samples
from mmkernel.registry import HOOKS

CLUSTERING = 2  # a part of the seed: the draws differ from those of SeedHook


@HOOKS.register_module()
class ClusterHook(Hook):
    """New labels for ``model.head`` (a ClusterHead) at the end of every ``interval``-th epoch, before the checkpoint.

    Args:
        features: 'memory': spherical k-means of what the head remembered of the epoch (Caron et al., NeurIPS 2020). Before the
            first epoch the training views pass once through the model without gradient, in train mode as published.
            'backbone' or 'neck': the whole set in eval mode, under the transform, batch size and workers of ``evaluation``,
            PCA with whitening, k-means; classifiers start anew and their optimizer state is cleared; a BalancedSampler is
            told the labels (Caron et al., ECCV 2018).
        iterations: of k-means.
        interval: epochs between clusterings.
        pca_dim: components, None for no PCA; not for 'memory'.
    """

    priority = 'LOW'

    def __init__(
        self, features: str = 'memory', iterations: int = 10, interval: int = 1, pca_dim: int | None = 256
    ) -> None:
        if features not in ('memory', 'backbone', 'neck'):
            raise ValueError(f"ClusterHook.features is 'memory', 'backbone' or 'neck', got {features!r}.")
        check_numbers('ClusterHook', whole=True, iterations=iterations, interval=interval)
        check_numbers('ClusterHook', whole=True, none=True, pca_dim=pca_dim)
        self.features, self.iterations, self.interval, self.pca_dim = features, iterations, interval, pca_dim
        self.saved: dict | None = None

    def before_run(self, runner: Any) -> None:
        """Make the buffers of one entry per image, before a checkpoint is loaded into them."""
        head = unwrap(runner.model).head
        if (learned := getattr(head, 'learned', None)) is not (self.features != 'memory'):
            classifier = {True: 'linear', False: 'centroids'}.get(learned, 'none')
            raise ValueError(
                "ClusterHook needs a ClusterHead, for features='memory' with classifier='centroids', else with 'linear'; got "
                f'features={self.features!r} and {type(head).__name__} with classifier={classifier!r}.'
            )
        head.prepare(len(dataset_of(runner)))

    def before_train(self, runner: Any) -> None:
        head, images = unwrap(runner.model).head, len(dataset_of(runner))
        if (labelled := head.pseudo.labels.shape[1]) != images:
            raise ValueError(
                f'The checkpoint has labels of {labelled} images, the training set {images}: other data. Start a new run.'
            )
        if not head.pseudo.made:
            if self.features == 'memory':
                self._first_pass(runner)
            self._cluster(runner, epoch=0)
        self._tell_sampler(runner)

    def before_train_epoch(self, runner: Any) -> None:
        """Forget the rows of earlier epochs, which a resumed run does not have; it has those of an epoch that it is inside."""
        if self.features == 'memory':
            memory = unwrap(runner.model).head.memory
            memory.clear()
            if self.saved is not None:
                memory.write(*(self.saved[name].to(memory.data.device) for name in ('index', 'rows')))
            self.saved = None

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """What the head remembers of the epoch that the checkpoint is inside."""
        if self.features == 'memory' and checkpoint['meta']['batch']:
            memory = unwrap(runner.model).head.memory
            checkpoint['cluster_memory'] = dict(index=memory.index(), rows=memory.data[:, memory.seen])

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        self.saved = checkpoint.get('cluster_memory') if runner._resume else None

    def after_train_epoch(self, runner: Any) -> None:
        if self.every_n_epochs(runner, self.interval):
            self._cluster(runner, runner.epoch + 1)
            self._tell_sampler(runner)

    @torch.no_grad()
    def _first_pass(self, runner: Any) -> None:
        model, loader = unwrap(runner.model).train(), runner.train_dataloader
        if hasattr(loader.sampler, 'set_epoch'):
            loader.sampler.set_epoch(runner.epoch)
        for batch in getattr(loader, 'micro_batches', loader):
            data = model.data_preprocessor(batch, True)
            with runner.optim_wrapper.optim_context(runner.model):
                embeddings = model.embeddings(data['inputs'], data['sample_index'])
            model.head.remember(embeddings.promoted())

    def _cluster(self, runner: Any, epoch: int) -> None:
        """Cluster, with draws that depend on (seed, epoch) alone: a resumed run makes the same clusters."""
        head = unwrap(runner.model).head
        generator = torch.Generator().manual_seed(runner.seed * 1_000_003 + epoch * 7 + CLUSTERING)
        if self.features == 'memory':
            head.cluster(generator, self.iterations)
        else:
            self._cluster_features(runner, generator)
        in_use = tuple(len(row[row >= 0].unique()) for row in head.pseudo.labels)  # -100: no cluster
        runner.logger.info(f'Clusters for epoch {epoch + 1}: {in_use} of {head.num_clusters} in use.')

    def _cluster_features(self, runner: Any, generator: torch.Generator) -> None:
        model, given, W = unwrap(runner.model), runner.cfg.get('evaluation') or {}, world_size()
        dataset = EvaluationDataset(dataset_of(runner).source, given.get('transform'))
        settings = given.get('batch_size', 256), given.get('num_workers', 0), self.features
        own = [i % len(dataset) for i in range(rank(), -(-len(dataset) // W) * W, W)]  # every W-th, equally many
        part, _ = extract_features(model, dataset, None, *settings, rows=own)
        where = model.head.pseudo.labels.device  # where collectives work
        by_rank = gather_rows(part.to(where)).unflatten(0, (W, -1))
        rows = by_rank.transpose(0, 1).flatten(0, 1)[: len(dataset)].cpu()
        for h, K in enumerate(model.head.num_clusters):
            seed = int(torch.randint(2**31 - 1, (), generator=generator))
            make = partial(whitened_kmeans, rows.numpy(), K, self.pca_dim, self.iterations, seed)
            labels = torch.from_numpy(on_first_process(make)).long()
            model.head.pseudo.set(h, torch.arange(len(rows)), labels.to(where))
        model.head.reset_classifiers(generator)
        for parameter in model.head.classifiers.parameters():
            runner.optim_wrapper.optimizer.state.pop(parameter, None)

    def _tell_sampler(self, runner: Any) -> None:
        loader = runner.train_dataloader
        if hasattr(loader.sampler, 'set_labels'):
            labels = unwrap(runner.model).head.pseudo.labels[0]
            loader.sampler.set_labels(labels[: len(loader.dataset)].cpu().numpy())


def whitened_kmeans(features: np.ndarray, clusters: int, dim: int | None, iterations: int, seed: int) -> np.ndarray:
    """PCA to ``dim`` with whitening (None: without PCA), rows to the sphere, k-means without subsampling: (n, d) -> (n,) labels.

    Caron et al., ECCV 2018. faiss splits a large cluster where one runs empty.
    """
    import faiss

    n, width = features.shape
    check_enough_samples(n, clusters)
    rows = np.ascontiguousarray(features, dtype=np.float32)
    if dim is not None:
        if dim > min(n, width):
            raise ValueError(
                f'pca_dim = {dim} components of {n} features of width {width}: at most {min(n, width)}; None: no PCA.'
            )
        pca = faiss.PCAMatrix(width, dim, -0.5)
        pca.train(rows)
        rows = pca.apply(rows)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    kmeans = faiss.Kmeans(rows.shape[1], clusters, niter=iterations, seed=seed, max_points_per_centroid=n)
    kmeans.cp.min_points_per_centroid = 1  # only silences a warning
    kmeans.train(rows)
    return kmeans.index.search(rows, 1)[1][:, 0]
