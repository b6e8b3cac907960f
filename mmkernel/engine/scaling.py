"""The learning rate for a batch of n images."""

from __future__ import annotations

import math

REFERENCE_BATCH = 256
RULES = ('linear', 'sqrt', None)


def effective_batch(batch: int, world_size: int = 1, accumulation: int = 1) -> int:
    """Images per optimizer step: batch per process x processes x accumulation."""
    return batch * world_size * accumulation


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
