"""Objectives, forward and backward at the embeddings: time and peak memory of the heads, the textbook forms and peers.

python benchmarks/losses.py --json benchmarks/results/losses.json         # the table of docs/engine.md; about 20 minutes
python benchmarks/losses.py --sweep --json benchmarks/results/sweep.json  # the points of docs/cost.png
python benchmarks/losses.py --device cuda --json gpu_losses.json          # on a GPU: gpu.py, 150 s
python benchmarks/losses.py --quick

Each form gets its inputs as leaves in its own layout: two (n, q) views, or the (2, n, q) tensor that the encoder makes.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from functools import partial

import gpu
import reference
import torch
from harness import Case, Maker, Step, arguments, gradient_step, measure
from torch import Tensor

from mmkernel.models import (
    CrossCorrelationHead,
    Embeddings,
    Head,
    InfoNCEHead,
    KernelMMDHead,
    VarianceCovarianceHead,
    WhiteningHead,
)

LEGENDRE = {1: (1.0,), 2: (1.0, 40.0), 3: (1.0, 40.0, 40.0)}
TEXTBOOK_LIMIT = 8 * 2**30  # bytes of its q x q matrices above which a textbook form is not run on a CPU


def two_views(n: int, q: int, device: torch.device) -> Tensor:
    """(2, n, q): views of the same images, correlated and with a mean, as embeddings are."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(n, q, generator=generator)
    return torch.stack([common + 0.5 * torch.randn(n, q, generator=generator) + 0.1 for _ in range(2)]).to(device)


def head_loss(head: Head, z: Tensor) -> Tensor:
    """The sum that is trained, from (2, n, q) embeddings as ``JointEmbedding`` hands them to a head."""
    views = (0, 1)
    embeddings = Embeddings(z, z, z, [(1, 0), (0, 1)], torch.arange(z.shape[1], device=z.device), views, views)
    return sum(value for key, value in head.loss(embeddings).items() if key.startswith('loss_'))


def ours(head: Callable[[], Head], n: int, q: int) -> Maker:
    def make(device: torch.device) -> Step:
        return gradient_step(partial(head_loss, head().to(device)), two_views(n, q, device).requires_grad_())

    return make


def plain(loss: Callable[[Tensor, Tensor], Tensor], n: int, q: int) -> Maker:
    def make(device: torch.device) -> Step:
        return gradient_step(loss, *(view.clone().requires_grad_() for view in two_views(n, q, device)))

    return make


def permutations(n: int, size: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(0)).view(1, -1, size)


# name -> (textbook loss of two views, head); both are the same function of the embeddings, which the tests check
def legendre(L: int, q: int) -> tuple[Callable, Callable]:
    c = 1.22 * q
    kernel = dict(type='LegendreKernel', weights=LEGENDRE[L])
    return (
        partial(reference.sfrik, weights=LEGENDRE[L], invariance=c),
        partial(KernelMMDHead, kernel, alignment_weight=c, reduction='element'),
    )


def uniformity(q: int) -> tuple[Callable, Callable]:
    c, kernel = 0.366 * q, dict(type='RBFKernel', scale=2.5)
    return (
        partial(reference.alignment_uniformity, scale=2.5, invariance=c),
        partial(KernelMMDHead, kernel, alignment_weight=c, reduction='element', statistic='U', log=True),
    )


OBJECTIVES: dict[str, Callable[[int], tuple[Callable, Callable]]] = {
    'SFRIK L=1': partial(legendre, 1),
    'SFRIK L=2': partial(legendre, 2),
    'SFRIK L=3': partial(legendre, 3),
    'AUH': uniformity,
    'NT-Xent': lambda q: (reference.nt_xent, partial(InfoNCEHead, temperature=0.15)),
    'VICReg': lambda q: (reference.vicreg, VarianceCovarianceHead),
    'Barlow Twins': lambda q: (reference.barlow_twins, CrossCorrelationHead),
}

# (objective, n, q, goal for time, goal for memory; ratios to the textbook form; limit of memory)
TABLE = [
    ('SFRIK L=3', 1024, 8192, 1.4, 1.4),
    ('SFRIK L=1', 2048, 8192, 25, 1.5),
    ('AUH', 1024, 8192, 1.4, 1.4),
    ('NT-Xent', 1024, 8192, 1.4, 1.5),
    ('VICReg', 1024, 8192, 7, 6.7),
    ('VICReg', 256, 16384, 40, 53),
    ('Barlow Twins', 1024, 8192, 4, 3.9),
    ('Barlow Twins', 256, 16384, 28, 31),
    ('VICReg', 2048, 512, 0.8, 0.7),
    ('SFRIK L=2', 2048, 512, 5, 6.5),
    ('SFRIK L=3', 2048, 512, 1.4, 2.8),
    ('Barlow Twins', 2048, 512, 0.8, 0.5),
    ('VICReg', 2048, 32768, None, None, 3 * 2**29),  # 1.5 GiB, gradients of 0.5 GiB included
    ('SFRIK L=3', 2048, 32768, 1.4, 1.4),
]


# library -> module, and its class for an objective
PEERS = {
    'lightly': (
        'lightly.loss',
        {'VICReg': 'VICRegLoss', 'Barlow Twins': 'BarlowTwinsLoss', 'NT-Xent': 'NTXentLoss'},
    ),
    'stable-pretraining': (
        'stable_pretraining.losses',
        {'VICReg': 'VICRegLoss', 'Barlow Twins': 'BarlowTwinsLoss', 'NT-Xent': 'NTXEntLoss'},
    ),
}


def peers(objective: str, n: int, q: int) -> dict[str, Maker]:
    """The same objective in libraries from PyPI, where they are installed."""
    options = dict(temperature=0.15) if objective == 'NT-Xent' else {}
    found = {}
    for library, (module, names) in PEERS.items():
        if objective in names and importlib.util.find_spec(module.split('.')[0]):
            try:
                loss = getattr(importlib.import_module(module), names[objective])
            except ImportError as error:
                print(f'{library} is here but does not import: {error}', file=sys.stderr)
                continue
            found[library] = lambda device, loss=loss: plain(loss(**options).to(device), n, q)(device)
    return found


def case(
    objective: str,
    n: int,
    q: int,
    time_goal: float | None = None,
    memory_goal: float | None = None,
    memory_limit: int | None = None,
    with_peers: bool = True,
) -> Case:
    textbook, head = OBJECTIVES[objective](q)
    forms = {'textbook': plain(textbook, n, q), 'ours': ours(head, n, q)}
    forms |= peers(objective, n, q) if with_peers else {}
    skip = {}
    if objective in ('VICReg', 'Barlow Twins'):
        size = 4 * q * q * (5 if objective == 'VICReg' else 4)  # of matrices alive at a time, as measured
        if size > TEXTBOOK_LIMIT:
            skip = {form: f'not run: about {size / 2**30:.0f} GiB' for form in forms if form != 'ours'}
    info = dict(objective=objective, n=n, q=q)
    return Case(f'{objective} n={n} q={q}', forms, time_goal, memory_goal, memory_limit, skip, info)


def whitening_case(n: int, q: int, size: int, time_goal: float | None = None) -> Case:
    def head() -> Head:
        head = WhiteningHead(sub_batch_size=size)
        head.permutation = lambda rows: permutations(rows, size)  # the same blocks on both sides
        return head

    forms = {
        'textbook': plain(partial(reference.wmse, permutations=permutations(n, size)), n, q),
        'ours': ours(head, n, q),
    }
    return Case(f'W-MSE n={n} q={q} blocks of {size}', forms, time_goal, info=dict(objective='W-MSE', n=n, q=q))


def cases(quick: bool = False, sweep: bool = False) -> list[Case]:
    if quick:
        return [*(case(objective, 24, 16) for objective in OBJECTIVES), whitening_case(32, 8, 16)]
    if sweep:
        over_q = [(1024, q) for q in (512, 1024, 2048, 4096, 8192, 16384)]
        over_n = [(n, 8192) for n in (128, 256, 512, 2048)]
        drawn = ('SFRIK L=3', 'AUH', 'NT-Xent', 'VICReg', 'Barlow Twins')
        return [case(objective, n, q, with_peers=False) for objective in drawn for n, q in over_q + over_n]
    return [*(case(*line) for line in TABLE), whitening_case(512, 64, 128, 1.8)]


def main(argv: list[str] | None = None) -> list[dict]:
    args = arguments(
        __doc__,
        argv,
        sweep=dict(action='store_true', help='a grid of widths and batches for the plot'),
        gpu=dict(action='store_true', help='the forms and cases of a GPU, whatever the device'),
        limit_s=dict(type=float, default=110, help='on a GPU: no case is compiled that starts later'),
    )
    if args.gpu or args.device.startswith('cuda'):
        device = torch.device(args.device)
        return gpu.main(__file__, args, gpu.cases(OBJECTIVES, two_views, head_loss, args.quick, device))
    return measure(__file__, cases(args.quick, args.sweep), args)


if __name__ == '__main__':
    main()
