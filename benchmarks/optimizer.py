"""One optimizer step on all parameters of an encoder: time, and memory beyond parameters, gradients and momentum.

python benchmarks/optimizer.py --json benchmarks/results/optimizer.json    # 175 M parameters: 4 GB, about 2 minutes
"""

from __future__ import annotations

from functools import cache, partial

import torch
from harness import Case, Maker, Step, arguments, measure
from reference import LARSLoop
from torch import nn

from mmkernel.engine import LARS
from mmkernel.models import MLPNeck, TIMMBackbone

SETTINGS = dict(lr=0.1, weight_decay=1e-6)


@cache  # the forms of a case share parameters and gradients
def parameters(q: int, quick: bool, channels_last: bool, device: torch.device) -> list[nn.Parameter]:
    """Of ResNet-50 and the projector 2048-8192-8192-q, with gradients."""
    torch.manual_seed(0)
    if quick:
        encoder = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(16, q))
    else:
        encoder = nn.Sequential(TIMMBackbone('resnet50'), MLPNeck((8192, 8192, q), in_dim=2048))
    encoder = encoder.to(device, memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    for p in encoder.parameters():
        p.grad = 1e-3 * torch.randn_like(p)
    return list(encoder.parameters())


def stepping(optimizer: type, *arguments: object) -> Maker:
    def make(device: torch.device) -> Step:
        return optimizer(parameters(*arguments, device), **SETTINGS).step

    return make


def case(q: int, quick: bool = False, channels_last: bool = False, time_goal: float | None = None) -> Case:
    forms = {
        'textbook': stepping(LARSLoop, q, quick, channels_last),
        'ours': stepping(LARS, q, quick, channels_last),
    }
    # the textbook form holds two tensors of the largest parameter's size: above 2, ours holds not even one
    layout = ', channels_last' if channels_last else ''
    return Case(f'LARS, ResNet-50 + 2048-8192-8192-{q}{layout}', forms, time_goal, None if quick else 2.0)


def cases(quick: bool = False) -> list[Case]:
    full = partial(case, quick=quick)
    if quick:
        return [full(16), full(16, channels_last=True)]
    return [full(8192, time_goal=3.0), full(8192, channels_last=True)]


def main(argv: list[str] | None = None) -> list[dict]:
    args = arguments(__doc__, argv)
    return measure(__file__, cases(args.quick), args)


if __name__ == '__main__':
    main()
