"""The objectives as their papers and official codes write them: autograd does the backward pass, float32, nothing fused.

What the benchmarks compare against, and what their test checks the package's results with. Rows (n, q) of two views, one
process. Each function names the code whose arithmetic it follows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sfrik(x: Tensor, y: Tensor, weights: tuple[float, ...], invariance: float) -> Tensor:
    """c mean_elements (x^ - y^)^2 + 1/2 sum_views (1/n^2) sum_ij sum_l w_l P_l(q; z_i.z_j). valeoai/sfrik, ssl.py."""
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    return invariance * F.mse_loss(x, y) + (_legendre_mean(x, weights) + _legendre_mean(y, weights)) / 2


def _legendre_mean(z: Tensor, weights: tuple[float, ...]) -> Tensor:
    t, q = z @ z.T, z.shape[1]
    polynomials = (
        lambda: t,
        lambda: (q * t**2 - 1) / (q - 1),
        lambda: ((q + 2) * t**3 - 3 * t) / (q - 1),
    )
    return sum(w * P() for w, P in zip(weights, polynomials, strict=False) if w).mean()


def alignment_uniformity(x: Tensor, y: Tensor, scale: float = 2.5, invariance: float = 3000.0) -> Tensor:
    """c mean_elements (x^ - y^)^2 + 1/2 sum_views log mean_{i != j} exp(-scale ||z_i - z_j||^2). valeoai/sfrik, ssl.py."""
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    uniformity = [_off_diagonal((-2 * scale * (1 - z @ z.T)).exp()).mean().log() for z in (x, y)]
    return invariance * F.mse_loss(x, y) + sum(uniformity) / 2


def nt_xent(x: Tensor, y: Tensor, temperature: float = 0.15) -> Tensor:
    """mean over 2n anchors of -log softmax at the positive. google-research/simclr, objective.py (half of its sum)."""
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    n = x.shape[0]
    labels, itself = torch.arange(n, device=x.device), 1e9 * torch.eye(n, device=x.device)
    xx, yy = x @ x.T / temperature - itself, y @ y.T / temperature - itself
    xy, yx = x @ y.T / temperature, y @ x.T / temperature
    return (F.cross_entropy(torch.cat([xy, xx], 1), labels) + F.cross_entropy(torch.cat([yx, yy], 1), labels)) / 2


def vicreg(x: Tensor, y: Tensor, weights: tuple[float, float, float] = (25.0, 25.0, 1.0)) -> Tensor:
    """Invariance, variance hinge, covariance. facebookresearch/vicreg, main_vicreg.py."""
    n, q = x.shape
    invariance = F.mse_loss(x, y)
    x, y = x - x.mean(0), y - y.mean(0)
    hinges = [F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() / 2 for z in (x, y)]
    covariances = [_off_diagonal(z.T @ z / (n - 1)).pow(2).sum() / q for z in (x, y)]
    return weights[0] * invariance + weights[1] * sum(hinges) + weights[2] * sum(covariances)


def barlow_twins(x: Tensor, y: Tensor, off_diagonal_weight: float = 0.0051) -> Tensor:
    """sum (C_ii - 1)^2 + weight sum_{i != j} C_ij^2. facebookresearch/barlowtwins, main.py."""
    C = F.batch_norm(x, None, None, training=True).T @ F.batch_norm(y, None, None, training=True) / x.shape[0]
    return (C.diagonal() - 1).pow(2).sum() + off_diagonal_weight * _off_diagonal(C).pow(2).sum()


def _off_diagonal(C: Tensor) -> Tensor:
    """The n (n - 1) entries beside the diagonal, flat."""
    n = C.shape[0]
    return C.flatten()[:-1].view(n - 1, n + 1)[:, 1:].flatten()


def wmse(x: Tensor, y: Tensor, permutations: Tensor) -> Tensor:
    """mean over permutations of 2 - 2 mean cos after whitening blocks one by one. htdt/self-supervised, w_mse.py.

    ``permutations``: (I, K, s) row indices.
    """
    loss = 0.0
    for permutation in permutations:
        whitened = []
        for view in (x, y):
            z = torch.empty_like(view)
            for rows in permutation:
                z[rows] = _whitening_convolution(view[rows])
            whitened.append(F.normalize(z, dim=-1))
        loss = loss + 2 - 2 * (whitened[0] * whitened[1]).sum(-1).mean()
    return loss / len(permutations)


def _whitening_convolution(x: Tensor) -> Tensor:
    """htdt/self-supervised, whitening.py: the inverse of the Cholesky factor, applied as a 1 x 1 convolution."""
    s, q = x.shape
    centred = (x - x.mean(0))[:, :, None, None]
    T = centred.permute(1, 0, 2, 3).contiguous().view(q, -1)
    factor = torch.linalg.cholesky(T @ T.T / (s - 1))
    inverse = torch.linalg.solve_triangular(factor, torch.eye(q, dtype=x.dtype, device=x.device), upper=False)
    return F.conv2d(centred, inverse.contiguous().view(q, q, 1, 1))[:, :, 0, 0]


class LARSLoop(torch.optim.Optimizer):
    """One parameter after the other. facebookresearch/vicreg, main_vicreg.py."""

    def __init__(self, params, lr: float, weight_decay: float = 0.0, momentum: float = 0.9, eta: float = 1e-3) -> None:
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay, momentum=momentum, eta=eta))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group['params']:
                dp = p.grad
                if p.ndim > 1:
                    dp = dp.add(p, alpha=group['weight_decay'])
                    param_norm, update_norm = torch.norm(p), torch.norm(dp)
                    one = torch.ones_like(param_norm)
                    ratio = torch.where(update_norm > 0, group['eta'] * param_norm / update_norm, one)
                    dp = dp.mul(torch.where(param_norm > 0.0, ratio, one))
                state = self.state[p]
                if 'mu' not in state:
                    state['mu'] = torch.zeros_like(p)
                mu = state['mu']
                mu.mul_(group['momentum']).add_(dp)
                p.add_(mu, alpha=-group['lr'])


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Rescale rows and columns of exp(scores / epsilon) in turn. facebookresearch/swav, main_swav.py."""
    Q = torch.exp(scores / epsilon).t()
    K, B = Q.shape
    Q /= torch.sum(Q)
    for _ in range(iterations):
        Q /= torch.sum(Q, dim=1, keepdim=True)
        Q /= K
        Q /= torch.sum(Q, dim=0, keepdim=True)
        Q /= B
    Q *= B
    return Q.t()


@torch.no_grad()
def knn(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, k: int, temperature: float, num_classes: int
) -> float:
    """Top-1 in percent for one k; called again for each k. valeoai/sfrik, knn_eval.py (DINO's)."""
    bank, correct = F.normalize(train_x, dim=1).t(), 0
    test_x = F.normalize(test_x, dim=1)
    chunk = max(len(test_x) // 100, 1)
    for rows, labels in zip(test_x.split(chunk), test_y.split(chunk), strict=True):
        batch = len(rows)
        distances, indices = (rows @ bank).topk(k, largest=True, sorted=True)
        retrieved = torch.gather(train_y.view(1, -1).expand(batch, -1), 1, indices)
        one_hot = torch.zeros(batch * k, num_classes, device=rows.device).scatter_(1, retrieved.view(-1, 1), 1)
        votes = distances.clone().div_(temperature).exp_()
        scores = torch.sum(one_hot.view(batch, -1, num_classes) * votes.view(batch, -1, 1), 1)
        predictions = scores.sort(1, True).indices
        correct += int(predictions.eq(labels.view(-1, 1))[:, 0].sum())
    return 100 * correct / len(test_x)
