"""Whether phi and phi' are what the rest of the package takes them for: tried once, when a kernel is made.

A phi that writes into t, looks at other entries, or is cut off from autograd trains without an error, on the wrong objective.
"""

import contextlib
import copy
import inspect
import math
from abc import ABCMeta
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.kernels.legendre import gauss_gegenbauer
from mmkernel.kernels.panels import derivatives


class Tried(ABCMeta):
    """A kernel is tried when it is whole, whoever wrote its __init__: a subclass, a mixin or ``dataclass``."""

    def __call__(cls, *args: Any, **kwargs: Any) -> nn.Module:
        kernel = super().__call__(*args, **kwargs)
        try_kernel(kernel)
        return kernel

    @property
    def __signature__(cls) -> inspect.Signature:  # of __init__, not of __call__
        return inspect.signature(MethodType(cls.__init__, cls))


def try_kernel(kernel: nn.Module) -> None:
    """ValueError, with what came, what was expected and the fix, where ``kernel`` breaks a promise. Draws no random number."""
    name = type(kernel).__name__
    if '_buffers' not in vars(kernel):
        raise ValueError(f'{name}.__init__ must call super().__init__() first.')
    device = next((buffer.device for buffer in kernel.buffers()), torch.empty(()).device)
    if torch.compiler.is_compiling() or device.type == 'meta':
        return
    if learned := [word for word, parameter in kernel.named_parameters() if parameter.requires_grad]:
        raise ValueError(
            f'{name} has the parameter {learned[0]}, which no loss would ever train: gradients reach the embeddings alone. '
            'Make it a number, or a tensor by self.register_buffer(name, tensor).'
        )
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        even = torch.linspace(-1, 1, 33, dtype=torch.float64, device=device)  # -1, 0 and 1 among them
        between = torch.linspace(-0.973, 0.958, 31, dtype=torch.float64, device=device)
        t = torch.cat([even, between]).view(8, 8)
        q = _width(kernel, t)
        values = _values(kernel, t, q)
        _values(kernel, t.float(), q)
        _elementwise(kernel, t, q, values)
        _slope(kernel, between[None], q)
        _closed_forms(kernel, t, q, values)
        if not _of_the_library(kernel):
            _other_device(kernel, q)


def _width(kernel: nn.Module, t: Tensor) -> int:
    """64, unless phi takes no other width than one that the kernel holds."""
    for q in (64, *[v for v in vars(kernel).values() if type(v) is int and v >= 2]):
        with contextlib.suppress(Exception):  # reported in full where phi is tried
            kernel.phi(t.clone(), q)
            return q
    return 64


def _call(kernel: nn.Module, method: str, t: Tensor, q: int) -> Tensor:
    """phi or phi' at ``t``; refuses what is no real tensor of the shape, type and device of ``t``, and what writes into it."""
    name, given = f'{type(kernel).__name__}.{method}', t.clone()
    try:
        value = getattr(kernel, method)(given, q)
    except Exception as error:
        if _inherited(kernel, 'phi'):
            raise
        raise ValueError(
            f'{name}(t, q) failed at t of shape {tuple(t.shape)}, {t.dtype}, q = {q}: {type(error).__name__}: {error} Expected '
            f'{method}(self, t, q) in torch operations that take t of any shape and have derivatives in forward mode, or a '
            'dphi(self, t, q) beside phi.'
        ) from error
    if not torch.equal(given, t):
        raise ValueError(
            f'{name} changes t in place; expected a new tensor: t * 2 for t.mul_(2), or begin with t = t.clone().'
        )
    if not isinstance(value, Tensor):
        raise ValueError(
            f'{name} returned a {type(value).__name__}; expected a tensor like t: torch.full_like(t, c) for c.'
        )
    for what, fix in (
        ('shape', 'phi works entry by entry; leave out sums and views'),
        ('dtype', 'make constants Python numbers, or take them .to(t.dtype)'),
        ('device', 'make tensors with t.new_tensor(...) or torch.zeros_like(t)'),
    ):
        came, expected = getattr(value, what), getattr(t, what)
        if came != expected:
            raise ValueError(f'{name} returned {what} {came} for t of {what} {expected}: {fix}.')
    return value


def _values(kernel: nn.Module, t: Tensor, q: int) -> Tensor:
    values = _call(kernel, 'phi', t, q)
    for word, wrong in (('NaN', values.isnan()), ('infinite', values.isinf() & (t != 1))):
        if bool(wrong.any()):
            raise ValueError(
                f'{type(kernel).__name__}.phi is {word} at t = {t[wrong][0].item():.4g} ({t.dtype}, q = {q}); expected a finite '
                'value on all of [-1, 1) and perhaps an infinite one at 1. Clamp what goes into a root, logarithm or quotient.'
            )
    return values


def _elementwise(kernel: nn.Module, t: Tensor, q: int, values: Tensor) -> None:
    size = values[values.isfinite()].abs().max()
    for part in (..., (slice(1, 7, 2), slice(2, 6)), (3, slice(4, 5)), (4, slice(0, 1))):  # the last one is t = 1 alone
        again = _call(kernel, 'phi', t[part], q)
        if not torch.allclose(again, values[part], rtol=1e-9, atol=float(1e-12 * size)):
            raise ValueError(
                f'{type(kernel).__name__}.phi gives other values for {"the same t again" if part is ... else "a part of t"}; '
                'expected phi(t) to depend on nothing but its own entry and q. Leave out maxima, means, softmax, sorting and '
                'random numbers.'
            )


def _slope(kernel: nn.Module, t: Tensor, q: int) -> None:
    """dphi against differences of phi, where those of two steps to the left and right agree (at a kink they do not)."""
    name, inherited, step = type(kernel).__name__, _inherited(kernel, 'dphi'), 1e-7
    steps = torch.tensor([-1, -0.3, 0.3, 1], dtype=t.dtype, device=t.device)[:, None] * step
    values = torch.cat([_call(kernel, 'phi', t, q), _call(kernel, 'phi', t + steps, q)])
    sides = (values[1:] - values[:1]) / steps
    central = sides.mean(0, keepdim=True)
    # the sum of a series rounds everywhere as where it is large
    rounding = (4e-15 * values.abs().amax(0, keepdim=True) + 2e-16 * values.abs().max()) / step
    smooth = ((sides - central).abs() <= 0.05 * central.abs() + rounding).all(0, keepdim=True)
    allowed = 1e-3 * central.abs() + rounding + 1e-12 * central.abs().max()
    slopes = {f'{name}.dphi': _call(kernel, 'dphi', t, q)}
    if inherited:  # the expansion differentiates backward, whatever dphi does
        slopes[f"autograd's slope of {name}.phi"] = derivatives(kernel.profile(q), t, 1)[1]
    for what, slope in slopes.items():
        wrong = smooth & ~((slope - central).abs() <= allowed)
        if bool(wrong.any()):
            at, came, expected = (float(v[wrong][0]) for v in (t, slope, central))
            fix = 'Correct dphi, or leave it out: autograd then makes it'
            if inherited:
                fix = 'phi is cut off from autograd: no .item(), .detach(), no_grad or numpy, or write a dphi(t, q)'
            if inherited and not math.isfinite(came):
                fix = 'torch.where differentiates the branch not taken too: clamp what goes into its root or quotient'
            raise ValueError(
                f"{what} is {came:.6g} at t = {at:.4g}, q = {q}; differences of phi say phi' = {expected:.6g}. {fix}."
            )


def _inherited(kernel: nn.Module, method: str) -> bool:
    """Whether ``method`` is the one of ``Kernel`` itself."""
    owner = next(cls for cls in type(kernel).__mro__ if method in cls.__dict__)
    return owner.__name__ == 'Kernel' and owner.__module__ == 'mmkernel.kernels.kernel'


def _of_the_library(kernel: nn.Module) -> bool:
    """Whether the tests of this package answer for the kernel."""
    return type(kernel).__module__.startswith('mmkernel.kernels.')


def _closed_forms(kernel: nn.Module, t: Tensor, q: int, values: Tensor) -> None:
    """A monomials or coefficients of another phi, as of a parent whose phi a subclass has replaced."""
    name, monomials = type(kernel).__name__, kernel.monomials(q)
    if monomials is not None:
        powers = sum(a * t**k for k, a in enumerate(monomials))
        if not torch.allclose(powers, values, rtol=1e-6, atol=1e-6 * float(values.abs().max())):
            raise ValueError(
                f'{name}.monomials(q = {q}) = {monomials} are not those of its phi: correct them or return None.'
            )
    if _inherited(kernel, 'coefficients') or _of_the_library(kernel):
        return
    nodes, weights = gauss_gegenbauer(q)
    phi = kernel.profile(q)(nodes)
    expected = torch.stack([(weights * phi).sum(), q * (weights * phi * nodes).sum()])
    spread = (weights * (phi - expected[0]).square()).sum().sqrt()
    allowed = 1e-3 * torch.stack([expected[0].abs() + spread, math.sqrt(q) * spread]) + 1e-12 * expected[0].abs()
    came = kernel.coefficients(q, 1)
    shape = tuple(came.shape) if isinstance(came, Tensor) else None
    if shape != (2,) or not bool(((came - expected).abs() <= allowed).all()):
        raise ValueError(
            f'{name}.coefficients(q = {q}, 1) = {came}, shape {shape}; its phi has {[float(f"{b:.6g}") for b in expected]}, a '
            'float64 tensor (2,). Correct them, or set coefficients = Kernel.coefficients in a subclass with a phi of its own.'
        )


def _other_device(kernel: nn.Module, q: int) -> None:
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
