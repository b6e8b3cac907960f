"""Whether phi and phi' are what the rest of the package takes them for: tried once, when a kernel is made.

A phi that writes into t, looks at other entries, or is cut off from autograd trains without an error, on the wrong objective.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmkernel.kernels.legendre import angular_quadrature
from mmkernel.kernels.panels import derivatives

if TYPE_CHECKING:
    from mmkernel.kernels.kernel import Kernel

WIDTH = 64
_STEP = 1e-7


def try_kernel(kernel: Kernel) -> None:
    """ValueError, with what came, what was expected and the fix, where ``kernel`` breaks a promise. Draws no random number."""
    if '_buffers' not in vars(kernel):
        raise ValueError(f'{type(kernel).__name__}.__init__ must call super().__init__() first.')
    buffers = list(kernel.buffers())
    device = buffers[0].device if buffers else torch.empty(()).device
    if torch.compiler.is_compiling() or device.type == 'meta':
        return
    _constant(kernel)
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        q = _width(kernel, device)
        t = _points(device)
        values = _values(kernel, t, q)
        _values(kernel, t.float(), q)
        _elementwise(kernel, t, q, values)
        _slope(kernel, q, device)
        _closed_forms(kernel, t, q, values)
        if not _of_the_library(kernel):
            _other_device(kernel, q)


def _constant(kernel: Kernel) -> None:
    learned = [name for name, parameter in kernel.named_parameters() if parameter.requires_grad]
    if learned:
        raise ValueError(
            f'{type(kernel).__name__} has the parameter {learned[0]}, which no loss would ever train: gradients reach the '
            'embeddings alone. Make it a number, or a tensor by self.register_buffer(name, tensor).'
        )


def _points(device: torch.device) -> Tensor:
    """(8, 8): an even grid of [-1, 1] with -1, 0 and 1, and points between."""
    even = torch.linspace(-1, 1, 33, dtype=torch.float64, device=device)
    return torch.cat([even, torch.linspace(-0.973, 0.958, 31, dtype=torch.float64, device=device)]).view(8, 8)


def _width(kernel: Kernel, device: torch.device) -> int:
    """64, unless phi takes no other width than one that the kernel holds."""
    t = torch.zeros(2, dtype=torch.float64, device=device)
    for q in (WIDTH, *[v for v in vars(kernel).values() if type(v) is int and v >= 2]):
        try:
            kernel.phi(t.clone(), q)
            return q
        except Exception:  # reported in full where phi is tried
            continue
    return WIDTH


def _call(kernel: Kernel, method: str, t: Tensor, q: int) -> Tensor:
    """phi or phi' at ``t``; refuses what is no real tensor of the shape, type and device of ``t``, and what writes into it."""
    name, given = f'{type(kernel).__name__}.{method}', t.clone()
    try:
        value = getattr(kernel, method)(given, q)
    except Exception as error:
        if _inherited(kernel, 'phi'):
            raise
        raise ValueError(
            f'{name}(t, q) failed at t of shape {tuple(t.shape)}, {t.dtype}, q = {q}: {type(error).__name__}: '
            + str(error).rstrip('.')
            + f'. Expected {method}(self, t, q) in torch operations that take t of any shape and have derivatives in '
            'forward mode, or a dphi(self, t, q) beside phi.'
        ) from error
    if not torch.equal(given, t):
        raise ValueError(
            f'{name} changes t in place; expected a new tensor. Use t * 2 for t.mul_(2), torch.exp(t) for t.exp_(), or begin '
            'with t = t.clone().'
        )
    if not isinstance(value, Tensor):
        raise ValueError(
            f'{name} returned a {type(value).__name__}; expected a tensor like t. A constant is torch.full_like(t, c).'
        )
    for what, came, expected, fix in (
        ('shape', tuple(value.shape), tuple(t.shape), 'phi works entry by entry; leave out sums and views'),
        ('dtype', value.dtype, t.dtype, 'make constants Python numbers, or take them .to(t.dtype)'),
        ('device', value.device, t.device, 'make tensors with t.new_tensor(...) or torch.zeros_like(t)'),
    ):
        if came != expected:
            raise ValueError(f'{name} returned {what} {came} for t of {what} {expected}: {fix}.')
    return value


def _values(kernel: Kernel, t: Tensor, q: int) -> Tensor:
    values = _call(kernel, 'phi', t, q)
    for word, wrong in (('NaN', values.isnan()), ('infinite', values.isinf() & (t != 1))):
        if bool(wrong.any()):
            at = t[wrong][0].item()
            raise ValueError(
                f'{type(kernel).__name__}.phi is {word} at t = {at:.4g} ({t.dtype}, q = {q}); expected a finite value on all of '
                '[-1, 1] (at t = 1 it may be infinite). Clamp what goes into a root, logarithm or quotient.'
            )
    return values


def _elementwise(kernel: Kernel, t: Tensor, q: int, values: Tensor) -> None:
    parts = {
        'the same t again': ...,
        'a part of t': (slice(1, 7, 2), slice(2, 6)),
        'one entry of t': (3, slice(4, 5)),
        't = 1 alone': (4, slice(0, 1)),
    }
    for what, part in parts.items():
        again = _call(kernel, 'phi', t[part], q)
        size = values[values.isfinite()].abs().max()
        if not torch.allclose(again, values[part], rtol=1e-9, atol=float(1e-12 * size)):
            raise ValueError(
                f'{type(kernel).__name__}.phi gives other values for {what}; expected phi(t) to depend on nothing but its own '
                'entry and q. Leave out maxima, means, softmax, sorting and random numbers.'
            )


def _slope(kernel: Kernel, q: int, device: torch.device) -> None:
    """dphi against differences of phi, where those of two steps to the left and right agree (at a kink they do not)."""
    name, inherited = type(kernel).__name__, _inherited(kernel, 'dphi')
    t = torch.linspace(-0.973, 0.958, 31, dtype=torch.float64, device=device).view(1, 31)
    steps = torch.tensor([-1, -0.3, 0.3, 1], dtype=torch.float64, device=device)[:, None] * _STEP
    here, there = _call(kernel, 'phi', t, q), _call(kernel, 'phi', t + steps, q)
    sides = (there - here) / steps
    central = sides.mean(0, keepdim=True)
    rounding = 4e-15 * torch.cat([here, there]).abs().amax(0, keepdim=True) / _STEP
    smooth = ((sides - central).abs() <= 0.05 * central.abs() + rounding).all(0, keepdim=True)
    allowed = 1e-3 * central.abs() + rounding + 1e-12 * central.abs().max()
    slopes = {f'{name}.dphi': _call(kernel, 'dphi', t, q)}
    if inherited:  # the expansion differentiates backward, whatever dphi does
        slopes[f"autograd's slope of {name}.phi"] = derivatives(kernel.profile(q), t, 1)[1]
    for what, slope in slopes.items():
        wrong = smooth & ~((slope - central).abs() <= allowed)
        if bool(wrong.any()):
            at, came, expected = (float(v[wrong][0]) for v in (t, slope, central))
            if not inherited:
                fix = 'Correct dphi, or leave it out: autograd then makes it'
            elif math.isfinite(came):
                fix = (
                    'phi is cut off from autograd: no .item(), .detach(), torch.no_grad or numpy, or write a dphi(t, q)'
                )
            else:
                fix = 'torch.where differentiates the branch not taken too: clamp what goes into its root, logarithm or quotient'
            raise ValueError(
                f"{what} is {came:.6g} at t = {at:.4g}, q = {q}; differences of phi say phi' = {expected:.6g}. {fix}."
            )


def _inherited(kernel: Kernel, method: str) -> bool:
    """Whether ``method`` is the one of ``Kernel`` itself."""
    owner = next(cls for cls in type(kernel).__mro__ if method in cls.__dict__)
    return owner.__name__ == 'Kernel' and owner.__module__ == 'mmkernel.kernels.kernel'


def _of_the_library(kernel: Kernel) -> bool:
    """Whether the tests of this package answer for the kernel."""
    return type(kernel).__module__.startswith('mmkernel.kernels.')


def _closed_forms(kernel: Kernel, t: Tensor, q: int, values: Tensor) -> None:
    """A monomials or coefficients of another phi, as of a parent whose phi a subclass has replaced."""
    name = type(kernel).__name__
    monomials = kernel.monomials(q)
    if monomials is not None:
        powers = sum(a * t**k for k, a in enumerate(monomials))
        if not torch.allclose(powers, values, rtol=1e-6, atol=1e-6 * float(values.abs().max())):
            raise ValueError(
                f'{name}.monomials(q = {q}) = {monomials} are not those of its phi. Correct them or return None.'
            )
    if _inherited(kernel, 'coefficients') or _of_the_library(kernel):
        return
    came = kernel.coefficients(q, 1)
    if not isinstance(came, Tensor) or came.shape != (2,):
        shown: Any = tuple(came.shape) if isinstance(came, Tensor) else type(came).__name__
        raise ValueError(
            f'{name}.coefficients(q, 1) returned {shown}; expected a float64 tensor of shape (2,): b_0, b_1.'
        )
    nodes, weights = angular_quadrature(q)
    phi = kernel.profile(q)(nodes)
    expected = torch.stack([(weights * phi).sum(), q * (weights * phi * nodes).sum()])
    spread = (weights * (phi - expected[0]).square()).sum().sqrt()
    allowed = 1e-3 * torch.stack([expected[0].abs() + spread, math.sqrt(q) * spread])
    if not bool(((came - expected).abs() <= allowed + 1e-12 * expected[0].abs()).all()):
        raise ValueError(
            f'{name}.coefficients(q = {q}, 1) = {came.tolist()}; its phi has {[float(f"{b:.6g}") for b in expected]}. Correct '
            'them, or set coefficients = Kernel.coefficients in a subclass with a phi of its own.'
        )


def _other_device(kernel: Kernel, q: int) -> None:
    """On the meta device, which stands for a GPU: tensors that are no buffers stay behind when a model moves."""
    twin = copy.deepcopy(kernel).to('meta') if any(True for _ in kernel.buffers()) else kernel
    try:
        twin.phi(torch.empty(2, 3, device='meta'), q)
    except Exception as error:
        if 'device' in str(error) and 'cpu' in str(error):
            raise ValueError(
                f'{type(kernel).__name__}.phi holds a tensor that stays on the CPU when t is elsewhere: {error} '
                'Make it with self.register_buffer(name, tensor), or inside phi with t.new_tensor(...).'
            ) from error
