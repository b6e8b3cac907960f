"""SIGReg by slices and exactly: time, memory, and the direction of the gradient against the number of slices.

python benchmarks/slices.py --json benchmarks/results/slices.json

The objective is the mean over directions of Epps and Pulley's statistic (Balestriero & LeCun, LeJEPA, arXiv 2511.08544, 2025).
``K slices`` takes K random directions, 17 knots each, anew in every repetition. ``all slices`` is the limit of K: n times the
squared MMD to N(0, I) under EppsPulleyKernel, from one Gram matrix. ``multiquadric`` is the same with the kernel
sqrt(2 pi) InverseMultiquadricKernel(c='q').
Rows are normal with standard deviations from 0.3 to 1.6 and a mean. The cosine and the norm ratio compare the gradient with that of
``all slices`` in float64: means over five draws of the slices.
"""

import math

import torch
from harness import Case, Maker, Step, arguments, gradient_step, measure, report, row_of, write
from tables import bytes_text, seconds_text

from mmkernel.kernels import EppsPulleyKernel, InverseMultiquadricKernel, mmd2_to_normal
from mmkernel.losses import draw_slices, sliced

SLICES = (64, 256, 1024, 4096)
COLUMNS = ['case', 'form', 'time', '1024 slices / it', 'peak memory', 'cosine', 'norm ratio']
KERNELS = {'all slices': EppsPulleyKernel(), 'multiquadric': InverseMultiquadricKernel(c='q') * math.sqrt(2 * math.pi)}


def rows(n: int, q: int, device: torch.device) -> torch.Tensor:
    """(n, q) rows that are not N(0, I)."""
    noise = torch.randn(n, q, generator=torch.Generator().manual_seed(0))
    return (noise * torch.logspace(-0.5, 0.2, q) + 0.1).to(device)


def loss(form: str, z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if form in KERNELS:
        return z.shape[0] * mmd2_to_normal(z, KERNELS[form])
    return sliced(z, draw_slices(z.shape[1], int(form.split()[0]), generator, z))


def maker(form: str, n: int, q: int) -> Maker:
    def make(device: torch.device) -> Step:
        generator = torch.Generator(device).manual_seed(1)
        return gradient_step(lambda z: loss(form, z, generator), rows(n, q, device).requires_grad_())

    return make


def direction(form: str, n: int, q: int, draws: int = 5) -> tuple[float, float]:
    """Cosine and ratio of norms of the float64 gradient to that of all slices."""
    z = rows(n, q, torch.device('cpu')).double().requires_grad_()
    (true,) = torch.autograd.grad(loss('all slices', z, torch.Generator()), z)
    found = []
    for seed in range(1 if form in KERNELS else draws):
        (gradient,) = torch.autograd.grad(loss(form, z, torch.Generator().manual_seed(seed)), z)
        norms = gradient.norm() / true.norm()
        found.append([float((gradient * true).sum() / (true.norm() * gradient.norm())), float(norms)])
    return tuple(sum(values) / len(found) for values in zip(*found, strict=True))


def cases(quick: bool = False) -> list[Case]:
    sizes = [(16, 8)] if quick else [(256, 128), (512, 128), (1024, 512), (2048, 128)]
    forms = [f'{K} slices' for K in SLICES] + list(KERNELS)
    return [Case(f'n={n} q={q}', {form: maker(form, n, q) for form in forms}, info=dict(size=(n, q))) for n, q in sizes]


def lines_of(row: dict) -> list[list[str]]:
    base, lines = row['forms']['1024 slices'], []
    for form, figures in row['forms'].items():
        cosine, ratio = direction(form, *row['info']['size'])
        cells = [seconds_text(figures['seconds']), f'{base["seconds"] / figures["seconds"]:.2f}']
        cells.append('' if figures['peak_bytes'] is None else bytes_text(figures['peak_bytes']))
        lines.append([row['case'] if not lines else '', form, *cells, f'{cosine:.4f}', f'{ratio:.3f}'])
    return lines


def main(argv: list[str] | None = None) -> list:
    args = arguments(__doc__, argv)
    if args.peak:
        return measure(__file__, cases(args.quick), args)
    torch.set_num_threads(1)
    lines = []
    for case in cases(args.quick):
        lines += lines_of(row_of(__file__, case, args, torch.device(args.device)))
        write(__file__, args, columns=COLUMNS, lines=lines)
    report(__file__, args, columns=COLUMNS, lines=lines)
    return lines


if __name__ == '__main__':
    main()
