"""``mmkernel kernel show | compare | fit``: the kernel lab on the command line."""

import math
import sys
from pathlib import Path
from typing import Annotated

from mmengine.utils import import_modules_from_strings
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mmkernel.cli.options import Json
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.kernels import Kernel
from mmkernel.kernels.lab import WEIGHTINGS, KernelProfile, NoMimicError, kernel_profile, mimic, summary
from mmkernel.kernels.text import kernel_from_text
from mmkernel.writing import writable

Spec = Annotated[
    list[str], Parameter(metavar='SPEC', help="'TYPE key=value ...', or an expression: '0.5 * RBFKernel(scale=2)'")
]
Width = Annotated[int, Parameter(help='embedding width q')]
Imports = Annotated[list[str] | None, Parameter(consume_multiple=True, help='modules with kernels of your own')]
Batch = Annotated[int, Parameter(help='points of the null band')]
Order = Annotated[int, Parameter(help='largest degree of the expansion')]
Picture = Annotated[Path | None, Parameter(metavar='PNG', help='a picture')]


def kernel_of(text: str, modules: list[str] | None) -> Kernel:
    """The kernel that ``text`` describes, of this package or of the user's ``modules``."""
    sys.path += [str(Path.cwd())] if modules else []
    try:
        import_modules_from_strings(modules or [])
    except ImportError as error:
        raise ImportError(
            f'{error}. Modules are looked for in this folder ({Path.cwd()}) and on PYTHONPATH.'
        ) from error
    return kernel_from_text(text)


def show(
    kernel: Spec,
    /,
    *,
    width: Width = 256,
    batch: Batch = 256,
    order: Order = 8,
    imports: Imports = None,
    out: Picture = None,
    json: Json = False,
) -> None:
    """Profile, expansion, null band and gradient of one kernel."""
    name = ' '.join(kernel)
    _try(out)
    made = kernel_of(name, imports)
    p = kernel_profile(made, width, batch, order)
    console.print(f'[bold]{made}[/] at q = {p.q:,}: {_definiteness(p)}')
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
    _write({name: p}, out, json)


def compare(
    kernels: Spec,
    /,
    *,
    width: Width = 256,
    batch: Batch = 256,
    order: Order = 8,
    imports: Imports = None,
    out: Picture = Path('work_dirs/kernels.png'),
    json: Json = False,
) -> None:
    """Several kernels in one table and one picture."""
    _try(out)
    profiles = {name: kernel_profile(kernel_of(name, imports), width, batch, order) for name in kernels}
    for number, (name, p) in enumerate(profiles.items(), 1):
        say(f'[bold]{number}[/]  {name}: {_definiteness(p)}')
    table = Table(f'at q = {width:,}', *map(str, range(1, len(profiles) + 1)), box=SIMPLE_HEAD)
    for l in range(order + 1):
        shares = (float(p.coefficients[l]) / (p.point if math.isfinite(p.point) else 1.0) for p in profiles.values())
        table.add_row(f'b_{l} / point', *map(_number, shares))
    table.add_row('point: phi(1) - b_0', *(_number(p.point) for p in profiles.values()))
    table.add_row(f'null sd of U, N = {batch:,}', *(_number(p.band_u.sd) for p in profiles.values()))
    if any(p.normal_u for p in profiles.values()):
        sizes = (_number(p.normal_u.sd) if p.normal_u else 'none' for p in profiles.values())
        table.add_row(f'the same to N(0, I), N = {batch:,}', *sizes)
    for place in next(iter(profiles.values())).typical:
        table.add_row(f"phi', {place}", *(_slope(p.typical[place][2], p) for p in profiles.values()))
    console.print(table)
    _write(profiles, out, json)


def fit(
    kernel: Spec, /, *, max_order: int = 4, width: Width = 256, imports: Imports = None, json: Json = False
) -> None:
    """Weights of the LegendreKernel nearest to a kernel.

    Args:
        max_order: fits of order 1 to this.
    """
    made = kernel_of(' '.join(kernel), imports)
    if max_order < 1:
        raise ValueError(f'--max-order {max_order}: a LegendreKernel has order >= 1; 4 shows the orders 1 to 4.')
    table = Table('order', 'weighting', 'weights', 'residual', 'of the slope', box=SIMPLE_HEAD)
    rows = []
    for order in range(1, max_order + 1):
        for weighting in WEIGHTINGS:
            try:
                m = mimic(made, width, order, weighting)
            except NoMimicError:  # an even kernel has no fit of order 1
                table.add_row(str(order), weighting, 'none: every b_l is 0', '', '')
                continue
            weights = ', '.join(f'{b:.4g}' for b in m.weights)
            table.add_row(str(order), weighting, weights, f'{m.residual:.2%}', f'{m.slope_residual:.2%}')
            found = dict(weights=m.weights, residual=m.residual, slope_residual=m.slope_residual)
            rows.append(dict(order=order, weighting=weighting, **found))
    say(f'[bold]LegendreKernel nearest to {made}[/] at q = {width:,}')
    console.print(table)
    say(
        "residual: rms of what is left over rms of phi - mean, over pairs of uniform points ('typical') or t in [-1, 1] ('flat')"
    )
    if json:
        print_json(dict(kernel=str(made), width=width, fits=rows))


def _definiteness(p: KernelProfile) -> str:
    """The verdict without the coefficients, which the table shows."""
    return str(p.definiteness).split('; b_0')[0]


def _number(value: float) -> str:
    return '0' if abs(value) < 1e-12 else f'{value:.3g}'


def _slope(value: float, p: KernelProfile) -> str:
    """Powers of the distance up to 1 have an infinite slope at t = 1, which the kernel caps: above 1e5 phi(1), 'inf'."""
    return 'inf' if value > 1e5 * p.point else _number(value)


def _try(picture: Path | None) -> None:
    if picture:
        writable(picture, 'kernels.png')


def _write(profiles: dict[str, KernelProfile], picture: Path | None, json: bool) -> None:
    if picture:
        from mmkernel.visualization.kernels import kernel_plot  # matplotlib: a second to import

        kernel_plot(profiles, picture)
        say(f'written: {picture}')
    if json:
        print_json({name: summary(p) for name, p in profiles.items()})
