"""Random numbers as a function of what they are for, not of when they are drawn."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator, Philox

VIEWS, ORDER, SUBSET = 0, 1, 2  # what a stream is for; keeps the order of an epoch independent of the views


def generator(seed: int, epoch: int, index: int = 0, stream: int = 0, purpose: int = VIEWS) -> Generator:
    """The generator that belongs to (seed, epoch, index, stream) alone.

    Philox is a block cipher of a counter (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): the key
    is (seed, purpose), the counter starts at (0, stream, index, epoch), and drawing counts in the first word, so no two
    streams ever meet. Making one costs a few microseconds, there is no state to save, and it is the same in any worker.
    """
    word = 0xFFFFFFFFFFFFFFFF  # numpy wants unsigned 64-bit words; a negative seed is taken modulo 2^64
    key = np.array([seed & word, purpose], np.uint64)
    return Generator(Philox(key=key, counter=np.array([0, stream, index, epoch], np.uint64)))
