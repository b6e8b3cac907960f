"""Cluster labels and embeddings of all images of a data set, by dataset index."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmkernel.distributed import gather_rows
from mmkernel.losses.clustering import UNSEEN
from mmkernel.models.state import sent


class SampleLabels(nn.Module):
    """``sets`` labels of each image, -100 where it has none; a buffer, the same on all ranks and in every checkpoint."""

    def __init__(self, sets: int) -> None:
        super().__init__()
        self.register_buffer('labels', torch.zeros(sets, 0, dtype=torch.long))

    def prepare(self, num_samples: int) -> None:
        """No labels yet, for that many images."""
        self.labels = self.labels.new_full((self.labels.shape[0], num_samples), UNSEEN)

    def fit_buffers(self, state: dict[str, Tensor]) -> None:
        """As many images as in the file, so that an evaluation needs no data set to load it."""
        if 'labels' in state and state['labels'].ndim == 2:
            self.prepare(state['labels'].shape[-1])

    @property
    def made(self) -> bool:
        """Whether any image has a label."""
        return bool((self.labels != UNSEEN).any())

    def set(self, i: int, index: Tensor, labels: Tensor) -> None:
        """Set i: ``labels`` at the dataset indices ``index``, -100 elsewhere."""
        self.labels[i].fill_(UNSEEN)
        self.labels[i, index.to(self.labels.device)] = labels.to(self.labels.device)

    def of(self, sample_index: Tensor) -> Tensor:
        """(sets, B)."""
        if self.labels.shape[1] == 0:
            raise ValueError(
                'No image has a label: no hook makes clusters. Add one: --cfg-options default_hooks.cluster.type=ClusterHook.'
            )
        return self.labels.index_select(1, sent(sample_index, self.labels.device))


class EpochMemory(nn.Module):
    """The embeddings of ``views`` (online positions) of each image since ``clear``; every rank holds those of all ranks.

    Filled anew in each epoch, so no checkpoint holds it. ``prepare`` makes it as large as the data set.
    """

    def __init__(self, views: Sequence[int]) -> None:
        super().__init__()
        self.views = list(views)

    def prepare(self, num_samples: int, like: Tensor) -> None:
        """No rows yet; width, dtype and device as ``like`` (..., q)."""
        data, seen = like.new_zeros(len(self.views), num_samples, like.shape[-1]), torch.zeros(num_samples)
        self.register_buffer('data', data, persistent=False)
        self.register_buffer('seen', seen.bool().to(like.device), persistent=False)

    @torch.no_grad()
    def gathered(self, sample_index: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """(N,) dataset indices and (views, N, q) rows of all ranks, of ``z``: (V, B, q), all online views of this rank's images."""
        if max(self.views) >= len(z):
            raise ValueError(f'memory_views = {tuple(self.views)} of the head, but there are {len(z)} online views.')
        rows = gather_rows(torch.stack([z[v] for v in self.views], dim=1))
        return gather_rows(sent(sample_index, self.seen.device)), rows.transpose(0, 1).to(self.data.dtype)

    @torch.no_grad()
    def write(self, index: Tensor, rows: Tensor, real: Tensor | None = None) -> None:
        """What ``gathered`` returned. Where ``real``, a 0-dim bool tensor, is not set, nothing is written."""
        seen = torch.ones_like(index, dtype=torch.bool)
        if real is not None:
            rows = torch.where(real, rows, self.data.index_select(1, index))
            seen = real | self.seen.index_select(0, index)
        self.data.index_copy_(1, index, rows)
        self.seen.index_copy_(0, index, seen)

    def index(self) -> Tensor:
        """(n,) dataset indices of the images seen, ascending."""
        return self.seen.nonzero()[:, 0]

    def rows(self, i: int) -> Tensor:
        """(n, q) of the i-th remembered view (modulo their number), in the order of ``index``."""
        return self.data[i % len(self.views), self.seen]

    def clear(self) -> None:
        self.seen.fill_(False)
