"""Seeding from (seed, epoch, rank), and the random state as plain values."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmengine.dist import all_gather_object


def seed_everything(*entropy: int) -> None:
    """Seed python, numpy and torch (all devices) from a tuple of non-negative integers."""
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (third-party transforms draw from the global generator)
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


def random_state() -> dict:
    """State of this process's generators as plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    state = dict(
        python=[version, list(words), gauss],
        numpy=[name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Inverse of ``random_state``."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def gather_random_states() -> list[dict]:
    """The random state of every rank, in rank order; every rank must call it."""
    return all_gather_object(random_state())
