"""Energy of a cloud of embeddings under a kernel: (1/N^2) sum_ij phi(z_i.z_j), its value and gradient in one pass.

The gradient is made together with the value (``pair_sums.py``), waits as one (V, B, q) tensor, and is handed over in backward.

Shapes: V views, B local rows, N = B W global rows, q width, P pairs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkernel.distributed import sum_over_ranks_, world_size
from mmkernel.kernels.gram import Engine
from mmkernel.kernels.kernel import Kernel
from mmkernel.kernels.legendre import check_dimension
from mmkernel.kernels.pair_sums import energies_and_gradient, number_of_pairs
from mmkernel.kernels.sphere import Pairs, add_chord_gradients_, inverse_norms, squared_chords


def kernel_energy(
    z: Tensor,
    kernel: Kernel,
    statistic: str = 'V',
    precision: str = 'auto',
    layout: str = 'auto',
    transport_dtype: str | None = None,
) -> Tensor:
    """V: (1/N^2) sum_{i,j} phi(z_i.z_j);  U: 1/(N(N-1)) sum_{i != j} phi(z_i.z_j), over the N rows of all ranks.

    Zheng et al., ICLR 2023 (V statistic); Wang & Isola, ICML 2020 (U statistic, before its logarithm).

    Args:
        z: (B, q) this rank's raw embeddings, equal B on every rank; normalised here. Half precision comes out in float32.
        kernel: phi and its slope.
        statistic: 'V' keeps the diagonal (biased by (phi(1) - b_0)/N, never below b_0), 'U' leaves it out (unbiased).
        precision, layout, transport_dtype: see ``Engine``.

    Returns:
        A scalar: the energy of the global batch on every rank; gradients as ``mmkernel.distributed`` rules.

    Raises:
        ValueError: not a (B, q) matrix, q < 2, one row, NaN rows (on CPU), or phi(1) infinite under 'V'.
    """
    if z.ndim != 2:
        raise ValueError(f'Expected embeddings of shape (B, q), got {tuple(z.shape)}. One view at a time.')
    options = dict(precision=precision, layout=layout, transport_dtype=transport_dtype)
    return aligned_energies(z[None], kernel, [], statistic, **options)[1][0]


def mmd2_to_uniform(z: Tensor, kernel: Kernel, statistic: str = 'V') -> Tensor:
    """MMD^2(Q, uniform) = E K(z, z') - b_0 = sum_{l >= 1} b_l E P_l(z.z').

    'V': the squared distance of the empirical distribution, >= 0 for a positive definite kernel; uniform points give about
    sum_{l>=1} b_l / N. 'U': unbiased, zero in the mean for uniform points, may be negative.
    """
    return kernel_energy(z, kernel, statistic) - float(kernel.coefficients(z.shape[-1], 0)[0])


def aligned_energies(
    z: Tensor,
    kernel: Kernel,
    pairs: Pairs,
    statistic: str = 'V',
    precision: str = 'auto',
    layout: str = 'auto',
    transport_dtype: str | None = None,
) -> tuple[Tensor, Tensor]:
    """mean_pairs mean_n ||z^_in - z^_jn||^2 and ``kernel_energy`` of each view: (V, B, q) raw rows -> (), (V,).

    One function of autograd with two outputs, so that one (V, B, q) gradient is all that it ever holds. ``pairs`` may be
    empty; the distance is then 0. Other arguments and errors as for ``kernel_energy``.
    """
    _check_rows(z)
    if statistic not in ('V', 'U'):
        raise ValueError(f"statistic is 'V' (all pairs) or 'U' (i != j), got {statistic!r}.")
    engine = Engine(**Engine(precision, layout, transport_dtype).options(z, z.dtype))
    z = z if z.dtype == torch.float64 else z.float()
    distance, energies = _AlignedEnergies.apply(z, kernel, pairs, statistic, engine)
    if energies.device.type == 'cpu' and not torch.isfinite(energies).all():
        _explain_non_finite(z, kernel)
    return distance, energies


class _AlignedEnergies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, kernel: Kernel, pairs: Pairs, statistic: str, engine: Engine
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)  # a part that nobody differentiates costs nothing
        ctx.options = kernel, pairs, statistic, engine
        with torch.autocast(z.device.type, enabled=False):
            r = inverse_norms(z)
            d2 = squared_chords(z, z, r, r, pairs)
            distance = mean_chord(d2)
            energies, ctx.gradient = energies_and_gradient(
                z, r, kernel, statistic, engine, need_gradient=ctx.needs_input_grad[0]
            )
        ctx.save_for_backward(z, r, d2)
        return distance, energies

    @staticmethod
    def backward(ctx: Any, of_distance: Tensor | None, of_energies: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_second_derivative('kernel_energy')
        z, r, d2 = ctx.saved_tensors
        kernel, pairs, statistic, engine = ctx.options
        with torch.autocast(z.device.type, enabled=False):
            if of_energies is None:
                gradient, scale = torch.zeros_like(z, memory_format=torch.contiguous_format), None
            else:
                # Handed over, not copied: whoever walks back a second time (retain_graph) waits for a new one.
                gradient, ctx.gradient = ctx.gradient, None
                if gradient is None:
                    gradient = energies_and_gradient(z, r, kernel, statistic, engine)[1]
                scale = of_energies * (2 * world_size() / number_of_pairs(statistic, z.shape[1] * world_size()))
            if of_distance is None:
                pairs, d2 = [], d2[:0]
            factor = of_distance / d2.numel() if pairs else 0.0
            add_chord_gradients_((z, z), (r, r), d2, pairs, factor, (gradient, gradient), scale)
        return gradient, None, None, None, None


def mean_chord(d2: Tensor) -> Tensor:
    """The mean over pairs and the rows of all ranks of (P, B) squared distances; 0 without a pair."""
    if not d2.numel():
        return d2.new_zeros(())
    return (sum_over_ranks_(d2.sum(1).double().sum()) / (d2.numel() * world_size())).to(d2.dtype)


def refuse_second_derivative(name: str) -> None:
    """Under create_graph=True a gradient that was made without a graph would pass for a constant."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f'{name} has no second derivative: call backward or autograd.grad without create_graph=True.'
        )


def _check_rows(z: Tensor) -> None:
    if z.ndim != 3:
        raise ValueError(f'Expected views of shape (V, B, q), got {tuple(z.shape)}.')
    check_dimension(z.shape[2])
    if z.shape[1] * world_size() < 2:
        raise ValueError(
            f'A batch of {z.shape[1] * world_size()} image says nothing about a distribution; at least 2 are needed. '
            'Raise train_dataloader.batch_size.'
        )


def _explain_non_finite(z: Tensor, kernel: Kernel) -> None:
    bad = (~torch.isfinite(z)).any(2).any(0).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f'Embeddings hold NaN or infinity in {len(bad)} of {z.shape[1]} rows, first in row {bad[0]}. '
            'Usual causes: too high a learning rate, float16 without loss scaling (bfloat16 needs none), a corrupt image.'
        )
    raise ValueError(f'The energy under {kernel} is not finite although the embeddings are: check phi on [-1, 1].')
