"""First-in-first-out queue of the embeddings of earlier steps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.distributed import rank, world_size
from mmkernel.models.state import HostCounters, move
from mmkernel.registry import MODELS


@MODELS.register_module()
class FeatureQueue(HostCounters):
    """The last ``length`` unit rows of the global batch for each of ``views`` target views: first in, first out.

    He et al., CVPR 2020. One and the same buffer on every rank, rows in rank order; it starts with normalised Gaussian rows
    of a fixed seed. ``length`` is a multiple of the global batch N; a shorter batch, as the last of an epoch may be, wraps
    round, and so does a longer one, of which the last ``length`` rows stay.

    Args:
        length: rows per view.
        dim: their width q; a head fills in its own.
        views: number G of target views.
        enabled: False: nothing is stored or read until ``enable()`` (``QueueHook`` calls it).
    """

    counters = ('stored', 'enabled')
    option = 'queue.length'  # of the head, where a config says the length

    def __init__(self, length: int, dim: int | None = None, views: int = 1, enabled: bool = True) -> None:
        super().__init__()
        if dim is None:
            raise ValueError(
                'FeatureQueue.dim is None: a head inside a JointEmbedding fills it in; elsewhere, give it.'
            )
        check_numbers('FeatureQueue', whole=True, length=length, dim=dim, views=views)
        rows = torch.randn(views, length, dim, generator=torch.Generator().manual_seed(0), device='cpu')
        self.register_buffer('rows', F.normalize(rows, dim=-1))  # (G, length, q)
        self.register_buffer('pointer', torch.zeros((), dtype=torch.int64))  # where the next rows go
        self.stored = 0  # rows stored so far, up to length
        self.enabled = bool(enabled)

    @property
    def length(self) -> int:
        return self.rows.shape[1]

    @property
    def full(self) -> bool:
        """Whether every row is one that was stored, none a start value."""
        return self.stored >= self.length

    def enable(self) -> None:
        self.enabled = True

    def check_batch(self, rows: int) -> None:
        """Before training: ValueError unless ``length`` is a multiple of the global batch of ``rows``."""
        if self.length % rows:
            near = max(round(self.length / rows), 1) * rows
            raise ValueError(
                f'A queue of length {self.length} is not a multiple of the global batch of {rows} rows. Use length = {near} '
                f'(--cfg-options model.head.{self.option}={near}), or another batch size.'
            )

    def check(self, views: int, batch: int, width: int) -> None:
        """ValueError unless the queue fits ``views`` target views of any ``batch`` of rows of ``width``."""
        G, _, q = self.rows.shape
        if width != q:
            raise ValueError(
                f'The queue holds rows of width {q}, the neck gives {width}. Leave the dim of the queue out.'
            )
        if views != G:
            raise ValueError(f'The queue keeps rows of {G} target view(s), the batch has {views}: set views={views}.')

    @torch.no_grad()
    def enqueue(self, rows: Tensor, real: Tensor | None = None) -> None:
        """Replace the oldest rows by ``rows`` (G, N, q), those of all ranks in rank order; N may differ from call to call.

        Where ``real``, a 0-dim bool tensor, is not set, rows and pointer stay; ``stored`` counts the attempt.
        """
        self.check(*rows.shape)
        N, length = rows.shape[1], self.length
        kept = min(N, length)
        # pointer stays on the device: nothing is read from it
        at = (self.pointer + torch.arange(N - kept, N, device=self.rows.device)) % length
        new = rows[:, N - kept :].to(self.rows)
        if real is not None:
            new = torch.where(real, new, self.rows.index_select(1, at))
        self.rows.index_copy_(1, at, new)
        move(self.pointer, (self.pointer + N) % length, real)
        self.stored = min(self.stored + N, length)

    def stripe(self, of_rank: int | None = None, ranks: int | None = None) -> Tensor:
        """(G, length / W, q): every W-th row, from this rank's number on, so that the ranks' stripes are the whole queue."""
        of_rank, ranks = rank() if of_rank is None else of_rank, world_size() if ranks is None else ranks
        if self.length % ranks:
            raise ValueError(
                f'{ranks} processes cannot share a queue of length {self.length}: use a multiple of the global batch.'
            )
        return self.rows[:, of_rank::ranks]
