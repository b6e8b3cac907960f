"""Balanced soft assignments of rows to prototypes."""

import torch
from torch import Tensor

from mmkernel.distributed import max_over_ranks, sum_over_ranks_
from mmkernel.kernels.engine import Pairs
from mmkernel.losses.alignment import check_pairs, every_other


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
        last: codes of the last so many rows only (a queue may stand before them); None: all.

    Returns:
        (..., B or ``last``, K), each row summing to 1.
    """
    if iterations < 1 or epsilon <= 0:
        raise ValueError(f'sinkhorn needs epsilon > 0 and iterations >= 1, got {epsilon} and {iterations}.')
    scores = scores if scores.dtype == torch.float64 else scores.float()
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


def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float, pairs: Pairs | None = None) -> Tensor:
    """mean_(i,j) mean_n -sum_k codes_jnk log softmax_k(scores_in / T) over this rank's rows. Caron et al., NeurIPS 2020.

    ``scores``: (V, B, K), ``codes``: (G, B, K).
    """
    pairs = every_other(scores, codes) if pairs is None else pairs
    check_pairs(pairs)
    log_probability = (scores / temperature).log_softmax(-1)
    sums: dict[tuple[int, ...], Tensor] = {}  # of the codes that a view predicts; views mostly predict the same ones
    for i in range(len(scores)):
        predicted = tuple(j for k, j in pairs if k == i)
        if predicted not in sums:
            sums[predicted] = sum((codes[j] for j in predicted[1:]), codes[predicted[0]]) if predicted else 0 * codes[0]
    targets = torch.stack([sums[tuple(j for k, j in pairs if k == i)] for i in range(len(scores))])
    return (targets * log_probability).sum() / (-len(pairs) * scores.shape[1])
