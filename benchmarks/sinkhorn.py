"""Balanced assignments of rows to prototypes: time and peak memory.

python benchmarks/sinkhorn.py --json benchmarks/results/sinkhorn.json
"""

from __future__ import annotations

import reference
import torch
from harness import Case, Maker, Step, arguments, measure

from mmkernel.losses.clustering import sinkhorn


def scores(B: int, K: int, device: torch.device) -> torch.Tensor:
    """Cosines of random unit rows and prototypes of width 128: (B, K)."""
    generator = torch.Generator().manual_seed(0)
    z, c = (torch.nn.functional.normalize(torch.randn(n, 128, generator=generator), dim=1) for n in (B, K))
    return (z @ c.T).to(device)


def form(function: object, B: int, K: int, kept: int) -> Maker:
    def make(device: torch.device) -> Step:
        x = scores(B, K, device)

        def step() -> None:
            function(x, kept)

        return step

    return make


def case(rows: int, queue: int, K: int, time_goal: float | None = None, memory_goal: float | None = None) -> Case:
    """Codes of ``rows`` rows, with ``queue`` rows of earlier batches before them."""
    B = rows + queue
    forms = {
        'textbook': form(lambda x, kept: reference.sinkhorn(x)[-kept:], B, K, rows),
        'ours': form(lambda x, kept: sinkhorn(x, last=kept), B, K, rows),
    }
    return Case(f'Sinkhorn B={rows}{f" + {queue}" if queue else ""} K={K}', forms, time_goal, memory_goal)


def cases(quick: bool = False) -> list[Case]:
    if quick:
        return [case(32, 16, 8)]
    return [case(4096, 3840, 3000, 1.6, 2.0), case(4096, 0, 3000), case(256, 3840, 3000)]


def main(argv: list[str] | None = None) -> list[dict]:
    args = arguments(__doc__, argv)
    return measure(__file__, cases(args.quick), args)


if __name__ == '__main__':
    main()
