"""Whitening: linear maps W with W S W' = I for the covariance S of a batch.

Kessy, Lewin and Strimmer, Optimal whitening and decorrelation, 2018, compare them; Ermolov et al., Whitening for
self-supervised representation learning, ICML 2021, use the inverse of the lower Cholesky factor.

Shapes: n rows, q width; ``...`` any leading axes (views, sub-batches), each whitened by its own statistics.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from mmkernel.checks import check_words
from mmkernel.kernels.layouts import refuse_second_derivative
from mmkernel.kernels.sphere import Pairs, unit_rows
from mmkernel.losses.alignment import REDUCTIONS, compared_pairs, mean_square
from mmkernel.losses.matrices import add_to_diagonal, cholesky, eigenvectors, factor, inverse_square_root
from mmkernel.losses.precision import full_precision

METHODS = ('cholesky', 'cholesky_precision', 'zca', 'pca', 'zca_cor', 'pca_cor')


@dataclass
class Whitened:
    """What ``whiten`` returns."""

    rows: Tensor  # (..., n, q), covariance I (divisor n - 1); 0 where all rows are one point
    jitter: Tensor  # (), largest jitter added, as a fraction of the mean variance; 0 normally
    pivots: Tensor  # (), largest ratio of the pivots of a covariance as it came; at most its condition number
    covariances: Tensor  # (..., q, q), as they came

    @property
    def condition(self) -> Tensor:
        """(), the largest condition number of a covariance, at most 1 / (q eps). Computed on access: it needs eigenvalues."""
        values = torch.linalg.eigvalsh(self.covariances)  # ascending
        least, most = values[..., 0], values[..., -1]
        return (most / least.maximum(most * (values.shape[-1] * torch.finfo(values.dtype).eps))).max()


@full_precision
def whiten(x: Tensor, method: str = 'cholesky', shrinkage: float = 0.0) -> Whitened:
    """z_i = W (x_i - mean),  W from S = (1 - shrinkage) cov + shrinkage I, divisor n - 1; the gradient passes through S.

    ``x``: (..., n, q). Methods: ``whitening_matrix``. Only 'cholesky' and 'cholesky_precision' are triangular solves and
    never form W; they have no second derivative. A covariance that is singular in working precision gets jitter; NaN and
    infinity come out as NaN, without an error and without a wait for the device.

    ValueError for n <= q without shrinkage: such a covariance is singular whatever the data.
    """
    n, q = x.shape[-2:]
    if not 0 <= shrinkage <= 1:
        raise ValueError(f'shrinkage mixes covariance (0) and identity (1); got {shrinkage}.')
    if n < 2 or (n <= q and not shrinkage):
        raise ValueError(
            f'Whitening {q} dimensions needs more samples than that, got {n}: the covariance of n rows has rank n - 1. '
            f'Use a (sub-)batch of at least {2 * q}, fewer dimensions (the last of neck.dims), or shrinkage > 0.'
        )
    if method == 'cholesky_precision':  # the upper factor of S: that of S in reversed order of dimensions
        reversed_ = whiten(x.flip(-1), 'cholesky', shrinkage)
        return replace(reversed_, rows=reversed_.rows.flip(-1))
    centred, spread = _centred(x)
    with torch.set_grad_enabled(torch.is_grad_enabled() and method != 'cholesky'):  # which has its own backward
        S, identity = (1 - shrinkage) / (n - 1) * (centred.mT @ centred), torch.eye(q, dtype=x.dtype, device=x.device)
        if shrinkage:
            S = S.add(identity, alpha=shrinkage)
        S = torch.where(spread[..., None], S, identity)
        found = factor(S)
    if method == 'cholesky':
        rows = _CholeskyWhitening.apply(centred, found.L, (1 - shrinkage) / (n - 1))
    else:
        rows = centred @ whitening_matrix(add_to_diagonal(S, found.shift), method).mT
    return Whitened(rows, found.jitter.max(), found.pivots.max(), S.detach())


def _centred(x: Tensor) -> tuple[Tensor, Tensor]:
    """x - mean, exactly 0 where all rows are one point up to rounding; and whether x has a spread that can be whitened.

    (..., n, q) -> (..., n, q), (..., 1). NaN and infinity stay in the rows, but have no spread.
    """
    mean = x.mean(dim=-2, keepdim=True)
    centred = x - mean
    with torch.no_grad():
        size = torch.linalg.vector_norm(mean, dim=(-2, -1)) * (8 * torch.finfo(x.dtype).eps * x.shape[-2] ** 0.5)
        spread = torch.linalg.vector_norm(centred, dim=(-2, -1))  # (...)
        finite = spread < torch.inf
        point = finite & (spread <= size)  # where the squares overflow, both are infinite
        sound = finite ^ point
    return centred.masked_fill(point[..., None, None], 0), sound[..., None]


class _CholeskyWhitening(torch.autograd.Function):
    """Z = X L^-T for L L' = scale X'X + constant. Two products and one triangular solve back, on the rows themselves.

    With dZ = dX L^-T - Z (Phi(L^-1 dS L^-T))', Phi the lower triangle with half the diagonal, and G = dl/dZ:
    dl/dX = (G - scale Z (F + F')) L^-1,  F = Phi(G'Z).
    """

    @staticmethod
    def forward(ctx: Any, X: Tensor, L: Tensor, scale: float) -> Tensor:
        Z = torch.linalg.solve_triangular(L.mT, X, upper=True, left=False)
        ctx.save_for_backward(Z, L)
        ctx.scale = scale
        return Z

    @staticmethod
    def backward(ctx: Any, G: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        Z, L = ctx.saved_tensors
        lower = (G.mT @ Z).tril_()
        both = lower + lower.tril(-1).mT  # F + F'
        return torch.linalg.solve_triangular(L, G - ctx.scale * (Z @ both), upper=False, left=False), None, None


@full_precision
def whitening_matrix(S: Tensor, method: str) -> Tensor:
    """W of each method for covariances S (..., q, q), with W S W' = I.

    S = L L' = U diag(l) U' (l descending, U with a positive diagonal), V = diag(S), P = V^-1/2 S V^-1/2 = G diag(t) G':
    cholesky L^-1; cholesky_precision the transposed lower factor of S^-1; zca S^-1/2; pca diag(l)^-1/2 U';
    zca_cor P^-1/2 V^-1/2; pca_cor diag(t)^-1/2 G' V^-1/2.

    The gradients of zca and zca_cor are smooth also where eigenvalues meet; eigenvectors, hence pca and pca_cor, have no
    derivative there, and close pairs are damped: see ``mmkernel.losses.matrices``.
    """
    check_words(method=(method, METHODS))
    identity = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device).expand_as(S)
    if method == 'cholesky':
        return torch.linalg.solve_triangular(cholesky(S), identity, upper=False)
    if method == 'cholesky_precision':
        return whitening_matrix(S.flip(-1, -2), 'cholesky').flip(-1, -2)
    if method.endswith('_cor'):
        scale = S.diagonal(dim1=-2, dim2=-1).rsqrt()  # (..., q)
        P = scale[..., :, None] * S * scale[..., None, :]
        return whitening_matrix(P, method.removesuffix('_cor')) * scale[..., None, :]
    root = inverse_square_root(S)
    return root if method == 'zca' else eigenvectors(S).mT @ root  # diag(l)^-1/2 U' = U' S^-1/2


def draw_sub_batches(rows: int, size: int, iterations: int, generator: torch.Generator) -> Tensor:
    """(I, K, s): I random permutations of ``rows`` row indices, each cut into K blocks of s = ``size``."""
    if rows % size:
        raise ValueError(
            f'A batch of {rows} images per process cannot be cut into whitening sub-batches of {size}. Take another '
            f'sub_batch_size, or --cfg-options train_dataloader.batch_size={max(round(rows / size), 1) * size}.'
        )
    drawn = [torch.randperm(rows, generator=generator) for _ in range(iterations)]
    return torch.stack(drawn).view(iterations, -1, size)


def sub_batches(x: Tensor, permutation: Tensor) -> Tensor:
    """Rows of V views in the blocks of I permutations: (V, n, q) and row indices (I, K, s) -> (I, V, K, s, q)."""
    chosen = x.index_select(1, permutation.flatten())  # its backward adds rows, that of x[:, permutation] entries
    return chosen.unflatten(1, permutation.shape).transpose(0, 1)


@full_precision
def whiten_views(x: Tensor, method: str = 'cholesky', shrinkage: float = 0.0, statistics: str = 'view') -> Whitened:
    """Whitened sub-batches: (..., V, K, s, q) -> the same shape.

    ``statistics``: 'view' whitens each view of each sub-batch by itself (official code of Ermolov et al.), 'joint' all
    views of a sub-batch together (their text).
    """
    check_words(statistics=(statistics, ('view', 'joint')))
    if statistics == 'view':
        return whiten(x, method, shrinkage)
    V, K, s, q = x.shape[-4:]
    joined = x.transpose(-4, -3).reshape(*x.shape[:-4], K, V * s, q)
    whitened = whiten(joined, method, shrinkage)
    return replace(whitened, rows=whitened.rows.view(*x.shape[:-4], K, V, s, q).transpose(-4, -3))


@full_precision
def whitened_distance(
    p: Tensor, t: Tensor, pairs: Pairs | None = None, distance: str = 'cosine', reduction: str = 'element'
) -> Tensor:
    """mean over pairs (i, j) and rows of 2 - 2 cos ('cosine') or ||p_i - t_j||^2 ('squared') of whitened rows.

    ``p``: (I, V, K, s, q), ``t``: (I, G, K, s, q). A block whose rows are all one point was whitened to 0: its rows count
    as orthogonal to all others, since a collapse would otherwise have the smallest distance of all.
    """
    check_words(distance=(distance, ('cosine', 'squared')), reduction=(reduction, REDUCTIONS))
    x = p.movedim(1, 0)  # (V, I, K, s, q)
    y = x if t is p else t.movedim(1, 0)
    pairs = compared_pairs(x, y, pairs)
    if distance == 'cosine':
        u = unit_rows(p, point=False)
        v = u if t is p else unit_rows(t, point=False)
        rows, u, v = x[0, ..., 0].numel(), u.unbind(1), v.unbind(1)
        return 2 - 2 / (len(pairs) * rows) * sum((u[i] * v[j]).sum() for i, j in pairs)
    zeros = torch.stack([_share_of_zeros(x[i]) + _share_of_zeros(y[j]) for i, j in pairs])
    mean = mean_square(x, y, pairs) + zeros.mean()  # the mean square of an entry of a whitened row is 1
    return mean * x.shape[-1] if reduction == 'sample' else mean


@torch.no_grad()
def _share_of_zeros(rows: Tensor) -> Tensor:
    return (torch.linalg.vector_norm(rows, dim=-1) == 0).to(rows.dtype).mean()
