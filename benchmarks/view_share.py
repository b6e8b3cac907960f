"""The device part of the views beside a step of the encoder that they are for. ``python benchmarks/data.py --device cuda`` runs it.

A batch as workers ship it waits on the device. In turn: its views are finished and normalised (``ViewPreprocessor``), and an
encoder takes a step on all of them (bfloat16, channels_last, SGD; no projector and no objective, so a whole step is longer).
Time between two CUDA events; medians.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from statistics import median

import torch
from harness import alternate
from torch import nn

from mmkernel.datasets import ViewDataset
from mmkernel.datasets.loader import collate_views
from mmkernel.models import TIMMBackbone, ViewPreprocessor

COLUMNS = ['case', 'encoder', 'images', 'views, ms', 'step, ms', 'share', 'goal']
GOAL = 0.05  # of the step, at most
ENCODERS = {  # case -> (encoder, images of a batch)
    '2 x 224': (dict(model_name='resnet50'), 256),
    '2 x 224 + 6 x 96': (dict(model_name='resnet50'), 128),
    '2 x 32': (dict(model_name='resnet18', small_images=True), 512),
}


def shares(datasets: dict[str, ViewDataset], args: Namespace) -> Iterator[dict]:
    """A row for each case. ``datasets``: with views_on='device'."""
    device = torch.device(args.device)
    for case, dataset in datasets.items():
        print(f'{case}: the device part ...', file=sys.stderr, flush=True)
        encoder, images = ENCODERS[case]
        encoder, images = (dict(encoder, model_name='resnet18'), 2) if args.quick else (encoder, images)
        preprocessor = ViewPreprocessor([127.5 / 255] * 3, [0.25] * 3, channels_last=True).to(device)
        preprocessor.finish = dataset.place(device)
        batch = collate_views([dataset[0, i % len(dataset)] for i in range(images)])
        batch = {key: [part.to(device) for part in batch[key]] for key in ('inputs', 'drawn')}
        step = encoder_step(TIMMBackbone(**encoder), preprocessor(dict(batch), True)['inputs'], device)
        forms = {
            'views': lambda _, b=batch, p=preprocessor: lambda: shape(p(dict(b), True)),
            'step': lambda _, s=step: s,
        }
        seconds, _ = alternate(forms, 2 if args.quick else max(args.rounds, 10), device)
        views, whole = (1000 * median(seconds[name]) for name in ('views', 'step'))
        yield dict(case=case, encoder=encoder['model_name'], images=images, views_ms=views, step_ms=whole, all=seconds)


def shape(batch: dict) -> list[torch.Size]:
    return [view.shape for view in batch['inputs']]


def encoder_step(encoder: nn.Module, views: list[torch.Tensor], device: torch.device) -> Callable[[], None]:
    encoder = encoder.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = sum(encoder(view).float().square().mean() for view in views)
        loss.backward()
        optimizer.step()

    return step


def line(row: dict) -> list[str]:
    share = row['views_ms'] / row['step_ms']
    figures = [str(row['images']), f'{row["views_ms"]:.3g}', f'{row["step_ms"]:.3g}', f'{share:.1%}']
    return [row['case'], row['encoder'], *figures, f'{GOAL:.0%} {"hit" if share <= GOAL else "miss"}']
