"""``mmkernel kernel show | compare | fit``: the kernel lab on the command line."""

import argparse
import math
import sys
from pathlib import Path

from mmengine.utils import import_modules_from_strings
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel.cli.options import console, say
from mmkernel.evaluation import save_report
from mmkernel.kernels import Kernel
from mmkernel.kernels.lab import WEIGHTINGS, KernelProfile, NoMimicError, kernel_profile, mimic, summary
from mmkernel.kernels.text import kernel_from_text
from mmkernel.writing import writable


def kernel_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar='{show,compare,fit}')
    spec = "'TYPE key=value ...' in quotes, or an expression: '0.5 * RBFKernel(scale=2) + RieszKernel()'"
    one = commands.add_parser('show', help='profile, expansion, null band and gradient of one kernel')
    one.add_argument('kernel', nargs='+', metavar='TYPE [key=value ...]', help='LegendreKernel weights=1,40,40')
    many = commands.add_parser('compare', help='several kernels in one table and one picture')
    many.add_argument('kernel', nargs='+', metavar='SPEC', help=spec)
    many.set_defaults(plot='work_dirs/kernels.png')
    best = commands.add_parser('fit', help='weights of the LegendreKernel nearest to a kernel')
    best.add_argument('kernel', nargs='+', metavar='TYPE [key=value ...]', help='RBFKernel scale=2')
    best.add_argument('--max-order', type=int, default=4, help='fits of order 1 .. this')
    for command, run in ((one, show), (many, compare), (best, fit)):
        command.add_argument('--width', type=int, default=256, metavar='Q', help='embedding width (default 256)')
        command.add_argument(
            '--imports', nargs='+', metavar='MODULE', default=[], help='files with kernels of your own'
        )
        command.add_argument('--json', metavar='OUT', help='write the numbers')
        command.set_defaults(run=run)
    for command in (one, many):
        command.add_argument('--batch', type=int, default=256, metavar='N', help='points of the null band')
        command.add_argument('--order', type=int, default=8, help='largest degree of the expansion')
        command.add_argument('--plot', metavar='PNG', help='picture (compare: default work_dirs/kernels.png)')


def kernel_of(text: str, modules: list[str]) -> Kernel:
    """The kernel that ``text`` describes, of this package or of the user's ``modules``."""
    sys.path += [str(Path.cwd())] if modules else []
    try:
        import_modules_from_strings(modules)
    except ImportError as error:
        raise ImportError(
            f'{error}. Modules are looked for in this folder ({Path.cwd()}) and on PYTHONPATH.'
        ) from error
    return kernel_from_text(text)


def _try_outputs(args: argparse.Namespace) -> None:
    if args.json:
        writable(args.json)
    if getattr(args, 'plot', None):
        writable(args.plot, 'kernels.png')


def show(args: argparse.Namespace) -> None:
    _try_outputs(args)
    name = ' '.join(args.kernel)
    kernel = kernel_of(name, args.imports)
    p = kernel_profile(kernel, args.width, args.batch, args.order)
    console.print(f'[bold]{kernel}[/] at q = {p.q:,}: {_definiteness(p)}')
    table = Table('degree l', 'b_l', "rms b_l P_l'(t)", box=SIMPLE_HEAD)
    for l, (b, size) in enumerate(zip(p.coefficients.tolist(), (0.0, *p.degree_gradients), strict=True)):
        table.add_row(str(l), _number(b), _number(size))
    console.print(table)
    table = Table('pair', 't', 'phi(t)', "phi'(t)", box=SIMPLE_HEAD)
    for place, values in p.typical.items():
        table.add_row(place, _number(values[0]), _number(values[1]), _slope(values[2], p))
    console.print(table)
    v = '' if p.band_v is None else f'; V {p.band_v.mean:.3g} ± {p.band_v.sd:.3g}'
    say(f'MMD^2 to uniform of {p.count:,} uniform points: U 0 ± {p.band_u.sd:.3g}{v}; of a single point: {p.point:.4g}')
    if p.normal_u is not None:
        u, v = p.normal_u, p.normal_v
        say(f'MMD^2 to N(0, I) of {p.count:,} normal rows, in R^q: U 0 ± {u.sd:.3g}; V {v.mean:.3g} ± {v.sd:.3g}')
    _write(args, {name: p})


def compare(args: argparse.Namespace) -> None:
    _try_outputs(args)
    profiles = {
        name: kernel_profile(kernel_of(name, args.imports), args.width, args.batch, args.order) for name in args.kernel
    }
    for number, (name, p) in enumerate(profiles.items(), 1):
        say(f'[bold]{number}[/]  {name}: {_definiteness(p)}')
    table = Table(f'at q = {args.width:,}', *map(str, range(1, len(profiles) + 1)), box=SIMPLE_HEAD)
    for l in range(args.order + 1):
        shares = (float(p.coefficients[l]) / (p.point if math.isfinite(p.point) else 1.0) for p in profiles.values())
        table.add_row(f'b_{l} / point', *map(_number, shares))
    table.add_row('point: phi(1) - b_0', *(_number(p.point) for p in profiles.values()))
    table.add_row(f'null sd of U, N = {args.batch:,}', *(_number(p.band_u.sd) for p in profiles.values()))
    if any(p.normal_u for p in profiles.values()):
        sizes = (_number(p.normal_u.sd) if p.normal_u else 'none' for p in profiles.values())
        table.add_row(f'the same to N(0, I), N = {args.batch:,}', *sizes)
    for place in next(iter(profiles.values())).typical:
        table.add_row(f"phi', {place}", *(_slope(p.typical[place][2], p) for p in profiles.values()))
    console.print(table)
    _write(args, profiles)


def fit(args: argparse.Namespace) -> None:
    _try_outputs(args)
    kernel = kernel_of(' '.join(args.kernel), args.imports)
    if args.max_order < 1:
        raise ValueError(f'--max-order {args.max_order}: a LegendreKernel has order >= 1; 4 shows the orders 1 to 4.')
    table = Table('order', 'weighting', 'weights', 'residual', 'of the slope', box=SIMPLE_HEAD)
    rows = []
    for order in range(1, args.max_order + 1):
        for weighting in WEIGHTINGS:
            try:
                m = mimic(kernel, args.width, order, weighting)
            except NoMimicError:  # an even kernel has no fit of order 1
                table.add_row(str(order), weighting, 'none: every b_l is 0', '', '')
                continue
            weights = ', '.join(f'{b:.4g}' for b in m.weights)
            table.add_row(str(order), weighting, weights, f'{m.residual:.2%}', f'{m.slope_residual:.2%}')
            found = dict(weights=m.weights, residual=m.residual, slope_residual=m.slope_residual)
            rows.append(dict(order=order, weighting=weighting, **found))
    say(f'[bold]LegendreKernel nearest to {kernel}[/] at q = {args.width:,}')
    console.print(table)
    say(
        "residual: rms of what is left over rms of phi - mean, over pairs of uniform points ('typical') or t in [-1, 1] ('flat')"
    )
    if args.json:
        say(f'written: {save_report(args.json, dict(kernel=str(kernel), width=args.width, fits=rows))}')


def _definiteness(p: KernelProfile) -> str:
    """The verdict without the coefficients, which the table shows."""
    return str(p.definiteness).split('; b_0')[0]


def _number(value: float) -> str:
    return '0' if abs(value) < 1e-12 else f'{value:.3g}'


def _slope(value: float, p: KernelProfile) -> str:
    """Powers of the distance up to 1 have an infinite slope at t = 1, which the kernel caps: above 1e5 phi(1), 'inf'."""
    return 'inf' if value > 1e5 * p.point else _number(value)


def _write(args: argparse.Namespace, profiles: dict[str, KernelProfile]) -> None:
    if args.plot:
        from mmkernel.visualization.kernels import kernel_plot  # matplotlib: a second to import

        kernel_plot(profiles, args.plot)
        say(f'written: {args.plot}')
    if args.json:
        say(f'written: {save_report(args.json, {name: summary(p) for name, p in profiles.items()})}')
