"""Distances between paired views, and the alignment and uniformity of Wang & Isola (ICML 2020)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmkernel.checks import check_words
from mmkernel.distributed.shards import mean_of_entries, total
from mmkernel.kernels.sphere import Pairs, to_sphere, unit_rows
from mmkernel.losses.precision import full_precision

REDUCTIONS = ('sample', 'element')
ALIGNMENTS = ('pairs', 'mean')


@full_precision
def squared_distance(x: Tensor, y: Tensor, reduction: str = 'sample') -> Tensor:
    """'sample': mean_i ||x_i - y_i||^2;  'element': that divided by q, as most published code has it.

    ``x``, ``y``: (..., q), any points of R^q. Returns a scalar over this rank's rows.
    """
    check_words(reduction=(reduction, REDUCTIONS))
    mean = F.mse_loss(x, y)
    return mean if reduction == 'element' else mean * x.shape[-1]


@full_precision
def alignment(x: Tensor, y: Tensor, exponent: float = 2.0, normalize: bool = False) -> Tensor:
    """mean_i ||x_i - y_i||^exponent of (B, q) points on the sphere (``normalize``: of raw rows)."""
    if normalize:
        x, y = unit_rows(x), unit_rows(y)
    return (x - y).norm(dim=-1).pow(exponent).mean()


@full_precision
def uniformity(z: Tensor, scale: float = 2.0, normalize: bool = False) -> Tensor:
    """log mean_{i<j} exp(-scale ||z_i - z_j||^2) of (B, q) points on the sphere (``normalize``: of raw rows).

    The logarithm of the U-statistic of ``RBFKernel(scale)``; on normalised rows ``kernel_energy`` gives the same value
    over all ranks and with its own backward.
    """
    if normalize:
        z = unit_rows(z)
    if z.shape[0] < 2:
        raise ValueError(f'Uniformity is a statistic of pairs: expected at least 2 rows, got {z.shape[0]}.')
    return torch.pdist(z).pow(2).mul(-scale).exp().mean().log()


@full_precision
def paired_distance(
    x: Tensor, y: Tensor, pairs: Pairs | None = None, reduction: str = 'sample', align: str = 'pairs',
    columns: int | None = None,
) -> Tensor:  # fmt: skip
    """mean over pairs (i, j) of mean_n ||x^_in - y^_jn||^2, rows normalised here, over the rows of all ranks.

    ``x``: (V, B, q), ``y``: (G, B, q) raw rows. ``reduction='element'`` divides by q. Raises where there is no pair.
    ``align='mean'``: to the mean of the targets, as in ``invariance``, rows normalised before the mean. ``columns``: q, where
    x and y are columns of all rows.
    """
    pairs = compared_pairs(x, y, pairs)
    if align == 'pairs' and x is y:
        return to_sphere(x, pairs, reduction, columns)[1]
    units = (unit_rows(z, columns=columns) for z in (x, y))
    return invariance(*units, pairs, align, reduction, columns)


@full_precision
def invariance(
    x: Tensor, y: Tensor, pairs: Pairs | None = None, align: str = 'pairs', reduction: str = 'sample',
    columns: int | None = None,
) -> Tensor:  # fmt: skip
    """'pairs': mean_(i,j) mean_n ||x_in - y_jn||^2;  'mean': mean_i mean_n ||x_in - c_n||^2,  c_n = mean_j y_jn.

    The second is that of Balestriero & LeCun, LeJEPA, 2025: every view against the mean of the global views, which are the
    target views; a global view counts in the mean that it is compared with. Over the rows of all ranks.

    Args:
        x: (V, B, q) predictions, any points of R^q; ``y``: (G, B, q) targets, with their gradient if they have one.
        pairs: (i of x, j of y) that must agree; None: all of different views. ValueError where there is none.
        align: 'pairs' or 'mean'.
        reduction: 'element' divides by q.
        columns: q, where x and y are columns of all rows (``mmkernel.distributed.shards``).
    """
    check_words(align=(align, ALIGNMENTS), reduction=(reduction, REDUCTIONS))
    pairs = compared_pairs(x, y, pairs)
    squares = mean_square(x, y, pairs) if align == 'pairs' else F.mse_loss(x, y.mean(0).expand_as(x))
    if reduction == 'element':
        return mean_of_entries(squares, x, columns)
    return total(squares * x.shape[-1], columns)


def mean_square(x: Tensor, y: Tensor, pairs: Pairs) -> Tensor:
    """mean over pairs and all entries of (x_i - y_j)^2: (V, B, q), (G, B, q) -> (); 0 without a pair."""
    if not pairs:
        return x.new_zeros(())
    same, x = x is y, x.unbind()  # once, so that backward stacks once
    y = x if same else y.unbind()
    squares = [F.mse_loss(x[i], y[j]) for i, j in pairs]
    return squares[0] if len(squares) == 1 else torch.stack(squares).mean()


def pairs_of_views(views: Sequence[int], target_views: Sequence[int]) -> list[tuple[int, int]]:
    """All (i, j) whose source views ``views[i]`` and ``target_views[j]`` differ, target by target."""
    return [(i, j) for j, g in enumerate(target_views) for i, v in enumerate(views) if v != g]


def compared_pairs(
    x: Tensor, y: Tensor, pairs: Pairs | None = None, ordered: bool = False, needed: bool = True
) -> Pairs:
    """The pairs (i of x, j of y) of an objective. None: all pairs of different views; position i of both is view i.

    Unless ``ordered``, d(a, b) = d(b, a): where x is y and each pair comes both ways, each is kept once. Their mean stays
    the same. ValueError where there is no pair, unless that is allowed (``needed=False``).
    """
    if pairs is None:
        pairs = pairs_of_views(range(len(x)), range(len(y)))
    if x is y and not ordered:
        once = [(i, j) for i, j in pairs if i < j]
        if sorted(pairs) == sorted(once + [(j, i) for i, j in once]):
            pairs = once
    if needed and not pairs:
        raise ValueError(
            'No pair of views to compare: an objective of pairs needs at least two views, head(z1, z2) in a loop of your '
            'own. In a config, check the views of the data.'
        )
    return pairs
