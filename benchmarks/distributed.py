"""FLOPs and bytes per rank of an objective on W ranks, counted, against gathering with gradients.

python benchmarks/distributed.py --json benchmarks/results/distributed.json

Counted on W gloo processes at small sizes: FLOPs of matrix products by torch's counter, forward and backward; bytes that a
rank receives, from what each collective is called with (a ring: all_gather (W-1)/W of the result, all_reduce twice that,
all_to_all (W-1)/W). The formulas below stand beside the counts; where they agree, they are evaluated at the size of a real
run. Two views.

    textbook  gather both views with gradients, each rank the whole loss:  12 N^2 q           6 (W-1) B q x 4 bytes
    rows      gather once, own rows of the Gram, nothing in backward:       8 N^2 q / W        2 (W-1) B q x transport
    columns   all_to_all to feature shards, all_reduce of partial Grams:    8 N^2 q / W        4 (W-1) B q / W x transport
                                                                                              + 4 (W-1) / W N^2 x 4 bytes

With the layer (q, d) that makes the embeddings, and the exchange of its gradient; N d and N q as numbers of one view:

    layer          on every rank, then columns            12 B d q + 8 N^2 q / W    2 (W-1) / W d q x 4 bytes + columns
    sharded layer  q / W features of it on each rank      12 B d q + 8 N^2 q / W    4 (W-1) B d x 4 + 4 (W-1) / W (N^2 + 2 N) x 4
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import reference
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from harness import arguments, report
from losses import head_loss, two_views
from torch.utils.flop_counter import FlopCounterMode

from mmkernel.distributed import ALL_GATHER
from mmkernel.models import Embeddings, KernelMMDHead, MLPNeck

LEGENDRE = (1.0, 40.0, 40.0)
BYTES = {None: 4, 'bfloat16': 2}
SCHEMES = [('textbook', None), ('rows', None), ('rows', 'bfloat16'), ('columns', None), ('columns', 'bfloat16')]
TARGET = dict(W=8, N=2048, q=32768)
LAYERS = ('layer', 'sharded layer')
WIDE = dict(d=8192, W=8, N=2048, q=262144)
GOALS = dict(flops=12, received=6)
COLUMNS = [
    'scheme',
    'transport',
    'W',
    'N',
    'q',
    'GFLOP',
    'formula',
    'received MB',
    'formula',
    'FLOPs ratio',
    'bytes ratio',
    'layer MB',
]


def formula(scheme: str, transport: str | None, W: int, N: int, q: int) -> dict[str, float]:
    """FLOPs and bytes received by one rank in a step."""
    B, size = N // W, BYTES[transport]
    if scheme == 'textbook':
        return dict(flops=12 * N * N * q, received=6 * (W - 1) * B * q * 4)
    if scheme == 'rows':
        return dict(flops=8 * N * B * q, received=2 * (W - 1) * B * q * size)
    return dict(flops=8 * N * N * q / W, received=4 * (W - 1) * B * q / W * size + 4 * (W - 1) / W * N * N * 4)


class Gather(torch.autograd.Function):
    """The usual gather with gradients, which sums those of all rows on every rank: (B, q) -> (N, q)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        gathered = x.new_empty(dist.get_world_size() * len(x), *x.shape[1:])
        getattr(dist, ALL_GATHER)(gathered, x.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> torch.Tensor:
        summed = upstream.clone()
        dist.all_reduce(summed)
        return summed.chunk(dist.get_world_size())[dist.get_rank()]


@contextmanager
def counted_collectives(received: list[float]) -> Iterator[None]:
    """Adds to ``received`` the bytes that this rank gets in each collective inside."""
    W = dist.get_world_size()

    def counting(function: Any, share: float, position: int) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            received.append(share * args[position].numel() * args[position].element_size())
            return function(*args, **kwargs)

        return call

    shares = dict(all_reduce=2 * (W - 1) / W, all_to_all_single=(W - 1) / W) | {ALL_GATHER: (W - 1) / W}
    originals = {name: getattr(dist, name) for name in shares}
    for name, share in shares.items():
        setattr(dist, name, counting(originals[name], share, 0))
    try:
        yield
    finally:
        for name, function in originals.items():
            setattr(dist, name, function)


def count(rank: int, scheme: str, transport: str | None, N: int, q: int) -> dict[str, float]:
    """FLOPs and received bytes of this rank's forward and backward pass."""
    own = two_views(N, q, torch.device('cpu')).chunk(dist.get_world_size(), dim=1)[rank].clone().requires_grad_()
    settings = dict(
        kernel=dict(type='LegendreKernel', weights=LEGENDRE), alignment_weight=1.22 * q, reduction='element'
    )
    received: list[float] = []
    with counted_collectives(received), FlopCounterMode(display=False) as counter:
        if scheme == 'textbook':
            x, y = (Gather.apply(view) for view in own)
            loss = reference.sfrik(x, y, LEGENDRE, 1.22 * q)
        else:
            loss = head_loss(KernelMMDHead(**settings, layout=scheme, transport_dtype=transport), own)
        loss.backward()
    return dict(flops=float(counter.get_total_flops()), received=sum(received))


def layer_formula(scheme: str, d: int, W: int, N: int, q: int) -> dict[str, float]:
    """``formula`` with the last layer; ``held``: bytes of its weight, gradient and momentum on one rank."""
    B, objective = N // W, formula('columns', None, W, N, q)
    flops = 12 * B * d * q + objective['flops']
    if scheme == 'layer':
        return dict(flops=flops, received=2 * (W - 1) / W * d * q * 4 + objective['received'], held=12 * d * q)
    return dict(
        flops=flops, received=(4 * (W - 1) * B * d + 4 * (W - 1) / W * (N * N + 2 * N)) * 4, held=12 * d * q / W
    )


def count_layer(rank: int, scheme: str, d: int, N: int, q: int) -> dict[str, float]:
    """``count`` of the last layer, the objective, and the exchange of the layer's gradient where ranks share it."""
    sharded = scheme == 'sharded layer'
    own = two_views(N, d, torch.device('cpu')).chunk(dist.get_world_size(), dim=1)[rank].clone().requires_grad_()
    neck = MLPNeck(dims=(q,), in_dim=d, sharded=sharded)
    kernel = dict(type='LegendreKernel', weights=LEGENDRE)
    head = KernelMMDHead(kernel=kernel, alignment_weight=1.22, layout='columns')
    received: list[float] = []
    with counted_collectives(received), FlopCounterMode(display=False) as counter:
        embeddings = replace(Embeddings.of(neck(own)), columns=q if sharded else None)
        sum(value for name, value in head(embeddings).items() if name.startswith('loss_')).backward()
        if not sharded:
            dist.all_reduce(neck[0].weight.grad)
    held = 3 * neck[0].weight.nbytes
    return dict(flops=float(counter.get_total_flops()), received=sum(received), held=float(held))


def _worker(rank: int, world_size: int, folder: str, schemes: list, sizes: list, layers: list) -> None:
    torch.set_num_threads(1)
    dist.init_process_group('gloo', f'file://{folder}/rendezvous', rank=rank, world_size=world_size)
    found = [count(rank, *scheme, *size) for scheme in schemes for size in sizes]
    found += [count_layer(rank, scheme, *size) for scheme in LAYERS for size in layers]
    if rank == 0:
        torch.save(found, Path(folder) / 'counts.pt')
    dist.destroy_process_group()


def counts(world_size: int, schemes: list, sizes: list, layers: list) -> list[dict[str, float]]:
    """``count`` of rank 0 for each scheme and size, then ``count_layer``, on ``world_size`` processes."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, (world_size, folder, schemes, sizes, layers), nprocs=world_size)
        return torch.load(Path(folder) / 'counts.pt', weights_only=True)


def line(scheme: str, transport: str | None, W: int, N: int, q: int, counted: dict | None = None) -> list[str]:
    ours, textbook = formula(scheme, transport, W, N, q), formula('textbook', None, W, N, q)
    cells = [scheme, str(transport or 'float32'), str(W), str(N), str(q)]
    for key, unit in (('flops', 1e9), ('received', 1e6)):
        cells += ['' if counted is None else f'{counted[key] / unit:.4g}', f'{ours[key] / unit:.4g}']
    for key, goal in GOALS.items():
        ratio = textbook[key] / (counted or ours)[key]
        verdict = f' ({goal} {"hit" if ratio >= goal else "miss"})' if counted is None else ''
        cells.append('' if scheme == 'textbook' else f'{ratio:.2f}{verdict}')
    return cells


def layer_line(scheme: str, d: int, W: int, N: int, q: int, counted: dict | None = None) -> list[str]:
    ours, plain = layer_formula(scheme, d, W, N, q), layer_formula('layer', d, W, N, q)
    cells = [f'{scheme}, d = {d}', 'float32', str(W), str(N), str(q)]
    for key, unit in (('flops', 1e9), ('received', 1e6)):
        cells += ['' if counted is None else f'{counted[key] / unit:.4g}', f'{ours[key] / unit:.4g}']
    ratios = [plain[key] / (counted or ours)[key] for key in ('flops', 'received')]
    cells += ['', ''] if scheme == 'layer' else [f'{ratio:.2f}' for ratio in ratios]
    return [*cells, f'{(counted or ours)["held"] / 1e6:.4g}']


def main(argv: list[str] | None = None) -> list[list[str]]:
    args = arguments(__doc__, argv)
    worlds, sizes = ([2], [(16, 64)]) if args.quick else ([2, 4], [(256, 1024), (256, 4096), (512, 4096)])
    layers = [(32, *sizes[0])] if args.quick else [(256, 256, 4096), (256, 512, 4096)]
    lines, wide = [], []
    for W in worlds:
        keys = [(*scheme, W, *size) for scheme in SCHEMES for size in sizes]
        found = counts(W, SCHEMES, sizes, layers)
        lines += [[*line(*key, counted), ''] for key, counted in zip(keys, found[: len(keys)], strict=True)]
        keys = [(scheme, d, W, N, q) for scheme in LAYERS for d, N, q in layers]
        wide += [layer_line(*key, counted) for key, counted in zip(keys, found[-len(keys) :], strict=True)]
    lines += [[*line(*scheme, **TARGET), ''] for scheme in SCHEMES]
    lines += wide + [layer_line(scheme, **WIDE) for scheme in LAYERS]
    report(__file__, args, columns=COLUMNS, lines=lines)
    return lines


if __name__ == '__main__':
    main()
