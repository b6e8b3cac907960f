"""``step.py --whole``: forward, backward and optimizer as training runs them, with a switch for each thing that costs or saves.

The textbook's form is the authors': one pass a view, autocast, DistributedDataParallel as PyTorch builds it, gathering with
gradients, the loss of ``reference.py`` on all N rows of every process, LARS parameter by parameter. Ours is ``wrap_model``,
``JointEmbedding.train_step`` and ``PretrainOptimWrapper``, with what ``configs/_base_/runtime.py`` says.

``--fake-world 8`` is rank 0 of 8 under PyTorch's fake process group: collectives return at once, what they would have brought is
not there. Times and memory are those of a rank that never waits; values of the loss mean nothing.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from harness import report, seconds_of, write
from losses import OBJECTIVES
from reference import LARSLoop
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmkernel.distributed import ALL_GATHER
from mmkernel.engine import LARS, PretrainOptimWrapper
from mmkernel.engine.launch import set_numerics
from mmkernel.engine.wrapping import check_wrapping, wrap_model
from mmkernel.models import JointEmbedding

HALF = {'float32': None, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
SWITCHES = {
    'channels_last': dict(channels_last=True),
    'contiguous': dict(channels_last=False),
    'compile': dict(compile=True),
    'checkpointing': dict(activation_checkpointing=True),
    'tf32': dict(tf32=True),
}
COLUMNS = ['step', 'form', 'N', 'q', 'precision', 'ms', 'images/s', 'peak MB', 'MB beside weights, gradients, momentum']


@dataclass
class Whole:
    """One objective, global batch and width."""

    objective: str
    N: int
    q: int
    size: int = 224  # of the square images
    hidden: int = 8192
    backbone: dict = field(default_factory=lambda: dict(model_name='resnet50', zero_init_residual=True))

    def model(self, layout: str) -> JointEmbedding:
        torch.manual_seed(0)
        _, head = OBJECTIVES[self.objective](self.q)
        neck = dict(type='MLPNeck', dims=(self.hidden, self.hidden, self.q))
        return JointEmbedding(dict(type='TIMMBackbone', **self.backbone), neck, head(layout=layout)).train()

    def name(self) -> str:
        return f'{self.objective} N={self.N} q={self.q}'


def settings(device: torch.device, world: int, quick: bool) -> list[Whole]:
    small = dict(model_name='resnet18', small_images=True)
    if quick:
        return [Whole('SFRIK L=3', 4 * world, 32, 16, 16, small)]
    if device.type == 'cpu':
        return [Whole('SFRIK L=3', 32 * world, 2048, 32, 2048, small)]
    if world == 1:
        return [Whole('SFRIK L=3', 256, 8192)]
    talk = [(256, 32768), (512, 32768), (1024, 32768), (2048, 16384)]  # the memory table of Zheng et al.'s talk
    return [Whole(name, N, q) for N, q in talk for name in ('SFRIK L=3', 'VICReg')]


def returned(state, bucket):
    """A hook in place of the all-reduce: the bucket as it is. (PyTorch checks annotations, and knows none that are texts.)"""
    future = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


class Gathered(torch.autograd.Function):
    """(B, q) of every rank -> (N, q), gradients summed over ranks. facebookresearch/vicreg, main_vicreg.py."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.zeros_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


class Encoder(nn.Module):
    """Embeddings of two views, one pass each, through PyTorch's own layers."""

    def __init__(self, net: JointEmbedding) -> None:
        super().__init__()
        layers = [
            nn.Linear(x.in_features, x.out_features, x.bias is not None) if isinstance(x, nn.Linear) else x
            for x in net.neck
        ]
        self.backbone, self.neck = net.backbone, nn.Sequential(*layers)

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        return [self.neck(self.backbone(view)) for view in views]


def textbook(case: Whole, args: argparse.Namespace, device: torch.device) -> tuple[Callable[[], None], list[Tensor]]:
    """The authors' step, and its weights."""
    set_numerics({})
    with device:  # drawing 300 million weights on a CPU takes seconds
        encoder, dtype = Encoder(case.model('auto')), HALF[args.precision]
    loss_of, _ = OBJECTIVES[case.objective](case.q)
    if args.fake_world:
        if device.type == 'cuda':
            encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
        encoder = DistributedDataParallel(encoder, device_ids=[device.index or 0] if device.type == 'cuda' else None)
        encoder.register_comm_hook(None, returned)
    parameters = list(encoder.parameters())
    optimizer = LARSLoop(parameters, lr=0.1, weight_decay=1e-6)
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == 'float16')
    views = images(case, args.fake_world or 1, device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            z = encoder(views)
            loss = loss_of(*(Gathered.apply(x) if args.fake_world else x for x in z))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step, parameters


def ours(
    switches: tuple[str, ...], case: Whole, args: argparse.Namespace, device: torch.device
) -> tuple[Callable[[], None], list[Tensor]]:
    """The package's step, with the ``switches`` on, and its weights."""
    cfg: dict[str, Any] = dict(sync_bn=True)
    for switch in switches:
        cfg.update(SWITCHES[switch])
    set_numerics(cfg)
    # under a fake group an all-to-all leaves garbage, a gathering copies
    with device:
        model = case.model('rows' if args.fake_world else 'auto')
    model = wrap_model(model, cfg, distributed=bool(args.fake_world))
    if args.fake_world:
        model.register_comm_hook(None, returned)
    parameters = list(model.parameters())
    wrapper = PretrainOptimWrapper(LARS(parameters, lr=0.1, weight_decay=1e-6), precision=args.precision)
    net = getattr(model, 'module', model)
    views = images(case, args.fake_world or 1, device)
    if net.data_preprocessor.channels_last:  # as they come out of the preprocessor
        views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    batch = dict(inputs=views, sample_index=torch.arange(len(views[0]), device=device))
    net.data_preprocessor.scales = False  # the images are floats: normalised already
    return lambda: model.train_step(batch, wrapper), parameters


def images(case: Whole, world: int, device: torch.device) -> list[Tensor]:
    """Two views of this rank's rows, on the device."""
    return list(torch.randn(2, case.N // world, 3, case.size, case.size, device=device))


def measured(
    make: Callable[[], tuple[Callable[[], None], list[Tensor]]], device: torch.device, rounds: int
) -> dict[str, float]:
    """Median milliseconds of a step after two that warm up; on a GPU the peak of all that is allocated, in MB of 10^6."""
    step, parameters = make()
    for _ in range(2):
        step()
    if device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    found = dict(ms=1000 * statistics.median(seconds_of(step, device)[0] for _ in range(rounds)))
    if device.type == 'cuda':
        found['peak'] = torch.cuda.max_memory_allocated() / 1e6
        found['beside'] = found['peak'] - 3 * sum(p.numel() * p.element_size() for p in parameters) / 1e6
    return found


def forms(args: argparse.Namespace) -> dict[str, Callable]:
    """name -> maker of a step. Each switch alone, and all that belong together."""
    chosen: dict[str, Callable] = {'textbook': textbook, 'ours': lambda *a: ours((), *a)}
    for words in args.switches.split(',') if args.switches else []:
        switches = tuple(words.split('+'))
        unknown = [switch for switch in switches if switch not in SWITCHES]
        if unknown:
            raise SystemExit(
                f'--switches: {unknown[0]!r} is unknown; choose from {", ".join(SWITCHES)}, joined by + or ,'
            )
        cfg = {key: value for switch in switches for key, value in SWITCHES[switch].items()}
        check_wrapping(cfg)
        chosen[f'ours, {words}'] = lambda *a, switches=switches: ours(switches, *a)
    return chosen


@contextmanager
def fake_world(world: int) -> Iterator[None]:
    """Rank 0 of ``world`` processes that all send what it sends. PyTorch's fake group gathers along the first axis alone."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    def all_gather(output: Tensor, x: Tensor, group: Any = None, async_op: bool = False) -> None:
        output.view(world, -1).copy_(x.reshape(1, -1))

    dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=world)
    try:
        with patch.object(dist, ALL_GATHER, all_gather):
            yield
    finally:
        gc.collect()  # models wrapped for several processes hold the group
        dist.destroy_process_group()


def line(case: Whole, form: str, precision: str, found: dict[str, float], world: int) -> list[str]:
    peak = [f'{found[key]:.0f}' if key in found else '' for key in ('peak', 'beside')]
    rate = f'{case.N / world / found["ms"] * 1000:.0f}'
    return [case.objective, form, str(case.N), str(case.q), precision, f'{found["ms"]:.1f}', rate, *peak]


def main(script: str, args: argparse.Namespace) -> list[list[str]]:
    """A line for every case and form, written as soon as it is known."""
    device, lines, world = torch.device(args.device), [], args.fake_world or 1
    with fake_world(world) if args.fake_world else nullcontext():
        for case in settings(device, world, args.quick):
            for form, make in forms(args).items():
                if not fnmatch.fnmatch(f'{case.name()} {form}', args.only):
                    continue
                try:
                    found = measured(
                        lambda c=case, m=make: m(c, args, device), device, 1 if args.quick else args.rounds
                    )
                    lines.append(line(case, form, args.precision, found, world))
                except torch.cuda.OutOfMemoryError:
                    lines.append([case.objective, form, str(case.N), str(case.q), 'out of memory', *[''] * 4])
                print(lines[-1], flush=True)
                write(script, args, columns=COLUMNS, lines=lines)
                gc.collect()
                if device.type == 'cuda':
                    torch.cuda.empty_cache()
    report(script, args, columns=COLUMNS, lines=lines)
    return lines
