"""Mutual information between two views, bounded from below and raised; critics that score how well two embeddings go together."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmkernel.checks import check_numbers, check_words
from mmkernel.distributed import gather_rows_with_gradient
from mmkernel.kernels.layouts import rows_at_a_time
from mmkernel.kernels.sphere import unit_rows
from mmkernel.losses import mutual_information as bounds
from mmkernel.losses.alignment import compared_pairs
from mmkernel.models.embeddings import Embeddings
from mmkernel.models.heads.head import Head, weighted
from mmkernel.models.joint_embedding import build_part, require_width
from mmkernel.registry import MODELS


@MODELS.register_module()
class MutualInformationHead(Head):
    """- I_bound(Y; X) of y = view 0 (rows) and x = view 1 (columns), from the scores F(y_i, x_j) of a critic.

    Poole et al., On variational bounds of mutual information, ICML 2019. Pairs are those of the rows of all ranks, so the
    logarithms are taken of global means; every rank scores all N^2 pairs. More views: the mean over pairs.

    Args:
        bound: 'infonce' (at most log N), 'nwj', 'dv', 'tuba', 'js' (trains with the Jensen-Shannon term, reports the NWJ
            value) or 'interpolated'. Embeddings are not normalised; a critic may do it.
        critic: SeparableCritic, ConcatenatedCritic or a module (y, x) -> (K, N) of your own.
        alpha: of 'interpolated': 0 is 'tuba', 1 is InfoNCE over N - 1.
        log_baseline: log a(y) of 'tuba' and 'interpolated': a number, or 'learned' for a small MLP of y.
        in_dim: q; filled in by JointEmbedding.
    """

    def __init__(
        self,
        bound: str = 'infonce',
        critic: nn.Module | dict | None = None,
        alpha: float = 0.5,
        log_baseline: float | str = 0.0,
        in_dim: int | None = None,
    ) -> None:
        super().__init__()
        check_words('MutualInformationHead', bound=(bound, bounds.BOUNDS))
        if isinstance(log_baseline, str) and log_baseline != 'learned':
            raise ValueError(f"MutualInformationHead.log_baseline is a number or 'learned', got {log_baseline!r}.")
        check_numbers('MutualInformationHead', zero=True, most=1.0, alpha=alpha)
        if log_baseline != 'learned':
            check_numbers('MutualInformationHead', signed=True, log_baseline=log_baseline)
        self.bound, self.alpha, self.log_baseline, self.in_dim = bound, alpha, log_baseline, in_dim
        self.critic = build_part(critic or dict(type='SeparableCritic'), in_dim)
        self.baseline: nn.Module | None = None
        if log_baseline == 'learned' and bound in ('tuba', 'interpolated'):
            require_width(self, in_dim)
            self.baseline = nn.Sequential(nn.Linear(in_dim, 256), nn.ReLU(), nn.Linear(256, 1), nn.Flatten(0))

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        pairs = compared_pairs(embeddings.predicted, embeddings.target, embeddings.pairs)
        same = embeddings.target is embeddings.predicted
        views = [embeddings.predicted] if same else [embeddings.predicted, embeddings.target]
        rows = [gather_rows_with_gradient(z.transpose(0, 1)).transpose(0, 1).unbind() for z in views]  # V x (N, q) each
        predicted, target = rows[0], rows[-1]
        value = torch.stack([self.estimate(predicted[i], target[j]) for i, j in pairs]).mean()
        return weighted(mutual_information=(-1, value))

    def estimate(self, y: Tensor, x: Tensor) -> Tensor:
        """The bound in nats from rows y and x, (N, q) each."""
        log_baseline = self.log_baseline if self.baseline is None else self.baseline(y)
        estimators = dict(
            infonce=bounds.infonce_bound,
            nwj=bounds.nwj_bound,
            dv=bounds.dv_bound,
            tuba=partial(bounds.tuba_bound, log_baseline=log_baseline),
            js=bounds.js_bound,
            interpolated=partial(bounds.interpolated_bound, alpha=self.alpha, log_baseline=log_baseline),
        )
        return estimators[self.bound](self.critic(y, x))  # (N, N)


def _mlp(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width, following in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(width, following), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


@MODELS.register_module()
class SeparableCritic(nn.Module):
    """F(y, x) = h(y).g(x) / temperature: (K, q), (N, q) -> (K, N), rows y, columns x.

    h and g are two MLPs of widths ``dims``, the identity where ``dims`` is empty.

    van den Oord et al., 2018; costs K + N passes. ``normalize``: h and g are put on the sphere first. ``shared``: g = h.
    """

    def __init__(
        self,
        dims: tuple[int, ...] = (256, 64),
        in_dim: int | None = None,
        shared: bool = False,
        normalize: bool = False,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        require_width(self, in_dim)
        check_numbers('SeparableCritic', temperature=temperature)
        check_numbers('SeparableCritic', whole=True, dims=(in_dim, *dims))
        self.h = _mlp([in_dim, *dims])
        self.g = self.h if shared else _mlp([in_dim, *dims])
        self.normalize, self.temperature = normalize, temperature

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        y, x = self.h(y), self.g(x)
        if self.normalize:
            y, x = unit_rows(y), unit_rows(x)
        return y @ x.T / self.temperature


@MODELS.register_module()
class ConcatenatedCritic(nn.Module):
    """F(y, x) = MLP([y; x]) -> R, hidden widths ``dims``. Costs K N passes, made a block of rows at a time.

    The first layer is a sum of one linear map of y and one of x, so it runs on K + N rows; pairs are formed after it. With
    several blocks, backward computes each block again, so that memory holds one block of pairs x width at a time.
    """

    def __init__(self, dims: tuple[int, ...] = (256, 256), in_dim: int | None = None) -> None:
        super().__init__()
        require_width(self, in_dim)
        check_numbers('ConcatenatedCritic', whole=True, several=True, dims=dims)
        self.first_y = nn.Linear(in_dim, dims[0])
        self.first_x = nn.Linear(in_dim, dims[0], bias=False)
        self.rest = nn.Sequential(nn.ReLU(inplace=True), _mlp([*dims, 1]))
        self.width = max(dims)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        y, x = self.first_y(y), self.first_x(x)
        blocks = y.split(rows_at_a_time(x.shape[0] * self.width, x))
        if len(blocks) == 1:
            return self._pairs(y, x)
        again = dict(use_reentrant=False, preserve_rng_state=False)  # the critic draws no random numbers
        return torch.cat([checkpoint(self._pairs, block, x, **again) for block in blocks])

    def _pairs(self, y: Tensor, x: Tensor) -> Tensor:
        return self.rest(y[:, None] + x[None]).squeeze(-1)
