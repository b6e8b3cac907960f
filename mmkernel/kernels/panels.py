"""A profile phi and its derivatives on panels of [-1, 1] that close in on its kinks.

Autograd differentiates point by point and takes a kink for a smooth place: |t| has the second derivative 0. What it misses
shows in the fundamental theorem of calculus, f(b) - f(a) = int_a^b f': a panel where it fails for phi or one of its derivatives
is cut into smaller ones, until a kink lies in a panel as narrow as rounding, a ``gap``, and its jumps can be read off.

Panels lie in the angle x, t = sin x, where the density of t is cos^{q-2} x and the distance ||u-v|| is smooth.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Profile = Callable[[Tensor], Tensor]

_DEGREE = 16  # of Clenshaw & Curtis' rule in a panel; those of degree 8 and 4 on the same nodes say how far off it is
_PARTS = 4  # into which a panel is cut
_GAP = 1e-14  # the width in t of a panel that is cut no further
_MOST_PANELS = 20_000  # without derivatives, whose graphs hold a copy of the nodes at each step
_LARGEST_GRAPH = 20_000  # nodes: nested differentiation of a root or a product grows exponentially, to all memory at 12
_RESOLVED = 1e-13  # of the integral over all panels
_ROUNDING = 2e-13  # of a derivative that autograd has made
_BEYOND_REACH = 1e-100  # the share of an integral below which a panel is left as it is


class NotResolvedError(ValueError):
    """phi is too rough, or autograd cannot differentiate it as often as asked for."""


@dataclass
class Panels:
    """phi, phi', ..., phi^(depth) at nodes t = sin x: n panels of m nodes each, both edges of a panel among them."""

    edges: Tensor  # (n, 2) in x
    x: Tensor  # (n, m)
    t: Tensor  # (n, m), inside (-1, 1): phi may be infinite at 1
    f: Tensor  # (depth + 1, n, m)

    @property
    def gaps(self) -> Tensor:
        """(n,) whether a panel is as narrow as the rounding of t: a kink or an end of [-1, 1] lies in it."""
        return self.edges.sin().diff(dim=1)[:, 0] <= _GAP

    @property
    def weights(self) -> Tensor:
        """(n, m): sum of weights * f = int f dx."""
        return self.edges.diff(dim=1) / 2 * _clenshaw_curtis(_DEGREE)[1]

    def jumps(self) -> Tensor:
        """(depth, gaps): the jump of phi^(i) over each gap, 0 where it is but the slope or rounding."""
        f, width = self.f[:, self.gaps], self.edges.diff(dim=1)[self.gaps, 0]
        size = f.abs().amax(2)
        jump = f[:-1, :, -1] - f[:-1, :, 0]
        return torch.where(jump.abs() > 1e-15 * size[:-1] + 2 * width * size[1:], jump, 0)

    def integrals(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """int values dx over each panel and the error of that: (..., n, m) -> (..., n) twice.

        Rules of degree 16, 8, 4 differ by d_1 and d_2: an analytic integrand leaves less than d_1 d_1/d_2, a kink about d_1.
        """
        half = self.edges.diff(dim=1)[:, 0] / 2
        fine, middle, coarse = (half * (values[..., ::k] @ _clenshaw_curtis(_DEGREE // k)[1]) for k in (1, 2, 4))
        first, second = (fine - middle).abs(), (middle - coarse).abs()
        return fine, first * torch.where(second > first, first / second, 1)


def resolve(phi: Profile, q: int, depth: int, start: Panels | None = None) -> Panels:
    """Panels on which phi^(j) cos^{q-2+2j} x, j = 0 ... ``depth``, are integrated to rounding and every kink lies in a gap.

    ``start``: panels of a smaller depth to go on from. NotResolvedError: see there.
    """
    edges = _first_edges(q) if start is None else start.edges
    panels = _evaluate(phi, edges, depth)
    while True:
        cut = _unresolved(panels, q) & ~panels.gaps
        if not bool(cut.any()):
            return panels
        if len(panels.edges) > _MOST_PANELS / (1 + depth):
            which = f'phi, or a derivative of it up to order {depth},' if depth else 'phi'
            raise NotResolvedError(f'{which} is too rough (does it round to float32 inside?)')
        panels = subdivide(phi, panels, cut, _PARTS)


def subdivide(phi: Profile, panels: Panels, cut: Tensor, parts: int) -> Panels:
    """Panels of which those under the mask ``cut`` are in ``parts``."""
    share = torch.arange(parts + 1, dtype=torch.float64) / parts
    grid = torch.lerp(panels.edges[cut, :1], panels.edges[cut, 1:], share)  # an edge that two panels share stays one
    new = _evaluate(phi, torch.stack([grid[:, :-1], grid[:, 1:]], 2).reshape(-1, 2), len(panels.f) - 1)
    return Panels(
        torch.cat([panels.edges[~cut], new.edges]),
        torch.cat([panels.x[~cut], new.x]),
        torch.cat([panels.t[~cut], new.t]),
        torch.cat([panels.f[:, ~cut], new.f], 1),
    )


def log_density(x: Tensor, q: int, power: int) -> Tensor:
    """log of cos^power x / int cos^{q-2}: with power = q-2 the density of x, with q-3 that of t."""
    log_cos = torch.where(x.abs() < 0.7, torch.log1p(-x.sin().square()) / 2, x.cos().log())  # small x keep their digits
    return power * log_cos - math.log(math.pi) / 2 + log_gamma_ratio((q - 1) / 2, 0.5)


def log_gamma_ratio(x: float, b: float) -> float:
    """log Gamma(x+b)/Gamma(x), to full precision at large x, where a difference of two lgamma loses digits."""
    if x < 64:
        return math.lgamma(x + b) - math.lgamma(x)
    y = x + b  # Stirling's series of both, subtracted term by term
    series = sum(c * (y**-p - x**-p) for c, p in ((1 / 12, 1), (-1 / 360, 3), (1 / 1260, 5)))
    return (x - 0.5) * math.log1p(b / x) + b * math.log(y) - b + series


def _unresolved(panels: Panels, q: int) -> Tensor:
    """(n,) where an integral has not converged or the theorem fails, of those panels that any integral feels."""
    f, cos = panels.f, panels.x.cos()
    bad = ~torch.isfinite(f).all(2).all(0)
    reach = torch.zeros_like(bad)
    for j, values in enumerate(f.nan_to_num()):
        density = log_density(panels.x, q + 2 * j, q + 2 * j - 2).exp()
        share = panels.integrals(values.abs() * density)[0]
        total = share.sum()
        reach |= share > _BEYOND_REACH * total
        bad |= panels.integrals(values * density)[1] > _RESOLVED * total
    rise = f[:-1, :, -1] - f[:-1, :, 0] - panels.integrals(f[1:] * cos)[0]
    size = f.abs().amax(2)
    bad |= (rise.abs() > _ROUNDING * (size[:-1] + size[1:])).any(0)
    return bad & reach


def _evaluate(phi: Profile, edges: Tensor, depth: int) -> Panels:
    nodes = (1 + _clenshaw_curtis(_DEGREE)[0]) / 2
    x = torch.lerp(edges[:, :1], edges[:, 1:], nodes)
    below_one = 1 - 2.0**-53
    t = x.sin().clamp(-below_one, below_one)
    return Panels(edges, x, t, derivatives(phi, t, depth))


def derivatives(phi: Profile, t: Tensor, depth: int) -> Tensor:
    """(phi, phi', ..., phi^(depth)) at ``t`` by autograd: (depth + 1, *t.shape)."""
    found = []
    with torch.inference_mode(False), torch.enable_grad():
        t = t.clone().requires_grad_(depth > 0)
        values = phi(t.clone())  # what a phi in place would change is its own
        for order in range(depth + 1):
            found.append(values.detach())
            if order == depth or not values.requires_grad:  # constant from here on
                break
            if _graph_exceeds(values, _LARGEST_GRAPH):
                raise NotResolvedError(
                    f'the derivative of order {depth} of phi is too large a graph for autograd at {order}'
                )
            try:
                (values,) = torch.autograd.grad(
                    values.sum(), t, create_graph=order + 1 < depth, allow_unused=True, materialize_grads=True
                )
            except RuntimeError as error:
                raise NotResolvedError(f'autograd has no derivative of order {order + 1} of phi ({error})') from error
    found += [torch.zeros_like(found[0])] * (depth + 1 - len(found))
    return torch.stack(found)


def _graph_exceeds(values: Tensor, limit: int) -> bool:
    """Whether the autograd graph behind ``values`` has more than ``limit`` nodes."""
    seen, open_ends = set(), [values.grad_fn]
    while open_ends and len(seen) <= limit:
        node = open_ends.pop()
        if node is not None and node not in seen:
            seen.add(node)
            open_ends += [parent for parent, _ in node.next_functions]
    return len(seen) > limit


def _first_edges(q: int) -> Tensor:
    """16 panels over all x, and those as wide as a standard deviation of t within eight of them."""
    wide = torch.linspace(-math.pi / 2, math.pi / 2, 17, dtype=torch.float64)
    near = torch.arange(-8, 9, dtype=torch.float64) / math.sqrt(q)
    grid = torch.cat([wide, near[near.abs() < 1.5]]).unique()
    return torch.stack([grid[:-1], grid[1:]], 1)


def _clenshaw_curtis(degree: int) -> tuple[Tensor, Tensor]:
    """Nodes -cos(k pi/degree) and weights on [-1, 1], an even degree."""
    k = torch.arange(degree + 1, dtype=torch.float64)
    j = torch.arange(1, degree // 2 + 1, dtype=torch.float64)
    b = torch.where(j < degree / 2, 2.0, 1.0).double() / (4 * j * j - 1)
    w = (1 - torch.cos(2 * math.pi / degree * k[:, None] * j) @ b) * 2 / degree
    w[0] /= 2
    w[-1] /= 2
    return -torch.cos(math.pi / degree * k), w
