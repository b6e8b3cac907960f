"""Lower bounds on the mutual information I(X; Y) in nats, from the scores of a critic on all pairs of a batch.

Poole et al., On variational bounds of mutual information, ICML 2019; van den Oord et al., 2018; Nguyen, Wainwright and
Jordan, 2010; Donsker and Varadhan, 1983.

``scores`` F: (K, K), row i is y_i, column j is x_j. The diagonal holds pairs from the joint distribution, the rest pairs
from the product of the marginals. ``log_baseline``: log a(y_i), (K,) or a number.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, softplus

from mmkernel.losses.precision import full_precision

BOUNDS = ('infonce', 'nwj', 'dv', 'tuba', 'js', 'interpolated')


@full_precision
def infonce_bound(scores: Tensor) -> Tensor:
    """log K + mean_i [F_ii - log sum_j exp F_ij] <= log K. Optimal critic: log p(x|y)/p(x) + c(y)."""
    _check(scores)
    return math.log(scores.shape[0]) - cross_entropy(scores, torch.arange(len(scores), device=scores.device))


@full_precision
def dv_bound(scores: Tensor) -> Tensor:
    """mean_i F_ii - log mean_{i != j} exp F_ij. The log of a minibatch mean: not strictly a bound. Optimal: log ratio + c."""
    return scores.diagonal().mean() - _log_mean_exp_off_diagonal(scores)


@full_precision
def tuba_bound(scores: Tensor, log_baseline: Tensor | float = 0.0) -> Tensor:
    """1 + mean_i [F_ii - log a_i] - mean_{i != j} exp(F_ij - log a_i). Optimal critic: log ratio + log a."""
    if isinstance(log_baseline, Tensor) and log_baseline.ndim:
        log_baseline = log_baseline[:, None]
    scores = scores - log_baseline
    return 1 + scores.diagonal().mean() - _log_mean_exp_off_diagonal(scores).exp()


@full_precision
def nwj_bound(scores: Tensor) -> Tensor:
    """mean_i F_ii - mean_{i != j} exp(F_ij - 1): the previous bound with a = e. Optimal critic: 1 + log ratio."""
    return tuba_bound(scores, 1.0)


@full_precision
def js_bound(scores: Tensor) -> Tensor:
    """Value of ``nwj_bound(F + 1)``, gradient of -mean_i softplus(-F_ii) - mean_{i != j} softplus(F_ij).

    The Jensen-Shannon term trains steadily and its optimal critic is the log ratio; the optimal critic of NWJ is 1 more.
    """
    _check(scores)
    K = scores.shape[0]
    joint, positive = scores.diagonal(), softplus(scores)
    js = -softplus(-joint).mean() - (positive.sum() - positive.diagonal().sum()) / (K * (K - 1))
    return js + (nwj_bound(scores + 1) - js).detach()


@full_precision
def interpolated_bound(scores: Tensor, alpha: float, log_baseline: Tensor | float = 0.0) -> Tensor:
    """The TUBA bound with baseline alpha * (mean over other x of exp F) + (1 - alpha) * a(y): bias against variance.

    alpha -> 0 is ``tuba_bound``; alpha -> 1 is InfoNCE over K - 1 samples, averaged over which one is left out. The
    baseline of the joint term leaves out one x_j, j != i; that of the marginal term leaves out x_i (K >= 3).
    """
    _check(scores, least=3)
    if not 0 <= alpha <= 1:
        raise ValueError(f'alpha lies between 0 (low bias) and 1 (low variance), got {alpha}.')
    K = scores.shape[0]
    log_a = log_baseline if isinstance(log_baseline, Tensor) else scores.new_full((), log_baseline)
    if alpha == 0:
        return tuba_bound(scores, log_a)
    baseline = _log_leave_one_out_mean(scores, math.log(alpha))  # (i, j): without x_j
    if alpha < 1:
        own = (log_a[:, None] if log_a.ndim else log_a) + math.log1p(-alpha)
        baseline = torch.logaddexp(baseline, own.expand_as(baseline))
    joint = scores.diagonal()[:, None] - baseline
    joint = (joint.sum() - joint.diagonal().sum()) / (K * (K - 1))
    marginal = _log_mean_exp_off_diagonal(scores - baseline.diagonal()[:, None]).exp()
    return 1 + joint - marginal


def _log_mean_exp_off_diagonal(scores: Tensor) -> Tensor:
    """log mean_{i != j} exp F_ij."""
    _check(scores)
    K = scores.shape[0]
    masked = scores.masked_fill(torch.eye(K, dtype=torch.bool, device=scores.device), -math.inf)
    return masked.flatten().logsumexp(0) - math.log(K * (K - 1))


def _log_leave_one_out_mean(scores: Tensor, shift: float) -> Tensor:
    """(i, j) -> shift + log of the mean of exp F_ik over k != j.

    log(sum - exp F_ij) = lse + log(1 - exp(F_ij - lse)) is exact but for the largest entry of a row, which may be all of
    the sum; without that one the rest is summed directly.
    """
    K = scores.shape[0]
    top = scores.argmax(dim=1, keepdim=True)
    is_top = torch.zeros_like(scores, dtype=torch.bool).scatter(1, top, True)
    lse = scores.logsumexp(dim=1, keepdim=True)
    share = (scores - lse).masked_fill(is_top, -1.0)
    rest = scores.masked_fill(is_top, -math.inf).logsumexp(dim=1, keepdim=True)
    return torch.where(is_top, rest, lse + torch.log(-torch.expm1(share))) + (shift - math.log(K - 1))


def _check(scores: Tensor, least: int = 2) -> None:
    if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
        raise ValueError(f'Expected the scores of all pairs, a square matrix (K, K); got {tuple(scores.shape)}.')
    if scores.shape[0] < least:
        raise ValueError(
            f'The bound needs a batch of at least {least} pairs, got {scores.shape[0]}. Raise train_dataloader.batch_size.'
        )
