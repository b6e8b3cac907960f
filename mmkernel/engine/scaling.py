"""The learning rate for a batch of n images."""

from __future__ import annotations

import math

from torch import nn

REFERENCE_BATCH = 256
RULES = ('linear', 'sqrt', None)


def effective_batch(batch: int, world_size: int = 1, accumulation: int = 1) -> int:
    """Images per optimizer step: batch per process x processes x accumulation."""
    return batch * world_size * accumulation


def micro_batches(virtual_batch: int, batch: int, world_size: int = 1, drop_last: bool = True) -> int:
    """k = virtual / (batch x W): micro-batches that each process passes in one step.

    ValueError if that is no whole number, or if the last micro-batch of an epoch may be smaller than the others.
    """
    at_once = batch * world_size
    k, rest = divmod(virtual_batch, at_once)
    if rest or k < 1:
        near = ' or '.join(str(n * at_once) for n in (k, k + 1) if n)
        raise ValueError(
            f'train_cfg.virtual_batch = {virtual_batch} counts the images of all processes in one step, and must be a multiple '
            f'of batch_size x processes = {batch} x {world_size} = {at_once}: use {near}, or another '
            'train_dataloader.batch_size.'
        )
    if k > 1 and not drop_last:
        raise ValueError(
            'train_cfg.virtual_batch needs micro-batches of one size: set train_dataloader.drop_last=True.'
        )
    return k


def lr_factor(rule: str | None, images: int) -> float:
    """n / 256 for 'linear' (Goyal et al., 2017), sqrt(n) for 'sqrt' (Krizhevsky, 2014), 1 for None."""
    if rule is None:
        return 1.0
    if rule == 'linear':
        return images / REFERENCE_BATCH
    if rule == 'sqrt':
        return math.sqrt(images)
    raise ValueError(f"lr_scaling='{rule}' is unknown; choose 'linear' (lr * n / 256), 'sqrt' (lr * sqrt(n)) or None.")


def describe_scaling(rule: str | None, lr: float, images: int) -> str:
    """One line for log and dry run: what was written, how it is scaled, what comes out."""
    scaled = lr * lr_factor(rule, images)
    how = {'linear': f'{lr:g} x {images} / {REFERENCE_BATCH}', 'sqrt': f'{lr:g} x sqrt({images})'}.get(rule)
    return f'{scaled:g}' + (f' = {how} (lr_scaling={rule!r})' if how else ' (lr_scaling=None: as written)')


def describe_weights(model: nn.Module, width: int | None = None) -> list[tuple[str, str]]:
    """(place, value) of each weight of a squared distance, in both conventions: 'element' is divided by q, 'sample' is not."""
    q = width or getattr(getattr(model, 'neck', None), 'out_dim', None)
    lines = []
    for place, part in model.named_modules():
        if q and getattr(part, 'reduction', None) in ('element', 'sample') and getattr(part, 'distance_weight', None):
            name, weight = part.distance_weight
            element, sample = (weight, weight / q) if part.reduction == 'element' else (weight * q, weight)
            text = (
                f"{element:.5g} with 'element' = {sample:.5g} with 'sample' at q = {q} (reduction={part.reduction!r})"
            )
            lines.append((f'{place}.{name}'.lstrip('.'), text))
    return lines
