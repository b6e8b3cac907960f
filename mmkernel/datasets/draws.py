"""Random numbers as a function of (seed, epoch, index, stream), not of when they are drawn; stratified draws."""

from collections.abc import Callable

import numpy as np
from numpy.random import Generator, Philox
from numpy.random.bit_generator import ISeedSequence

VIEWS, ORDER, SUBSET = 0, 1, 2  # what a stream is for; keeps the order of an epoch independent of the views


class _Key(ISeedSequence):
    """Philox's key as it is. Given as ``key=``, numpy would first gather randomness from the system: twice the time of all else."""

    def __init__(self, *words: int) -> None:
        self.words = words

    def generate_state(self, n_words: int, dtype: type = np.uint32) -> np.ndarray:
        return np.array(self.words, dtype)


def generator(seed: int, epoch: int, index: int = 0, stream: int = 0, purpose: int = VIEWS) -> Generator:
    """The generator that belongs to (seed, epoch, index, stream) alone.

    Philox is a block cipher of a counter (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011): the key
    is (seed, purpose), the counter starts at (0, stream, index, epoch), and drawing counts in the first word, so no two
    streams ever meet. Making one costs a few microseconds, there is no state to save, and it is the same in any worker.
    """
    key = _Key(seed & 0xFFFFFFFFFFFFFFFF, purpose)  # unsigned 64-bit words; a negative seed is taken modulo 2^64
    return Generator(Philox(key, counter=np.array([0, stream, index, epoch], np.uint64)))


def rows_by_label(labels: np.ndarray) -> dict[int, np.ndarray]:
    """{label: its rows, rising}, labels rising; one sort, however many labels there are."""
    labels = np.asarray(labels)
    order = labels.argsort(kind='stable')
    names, first = np.unique(labels[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True)) if len(labels) else {}


def draw_per_class(
    labels: np.ndarray, count: Callable[[int, int], int], pick: Callable[[int, np.ndarray, int], np.ndarray]
) -> np.ndarray:
    """A stratified draw: rows of k = ``count(label, n)`` of the n images of each class, class by class, labels rising.

    ``pick(label, rows, k)`` chooses k of the rows of a class and makes all random draws; it is called in the order of
    the labels. ValueError naming a class with fewer than k images.
    """
    chosen = [np.empty(0, np.int64)]
    for label, members in rows_by_label(labels).items():
        k = count(label, len(members))
        if k > len(members):
            raise ValueError(f'class {label} has {len(members)} images; {k} per class were asked for.')
        chosen.append(pick(label, members, k))
    return np.concatenate(chosen)


def smallest_keys(rng: Generator, rows: np.ndarray, k: int | None = None) -> np.ndarray:
    """The k of ``rows`` that draw the smallest random numbers: a larger k contains the smaller ones. None: all, shuffled.

    Numpy promises the stream of ``random``, but not that of ``permutation``, across its versions.
    """
    return rows[rng.random(len(rows)).argsort(kind='stable')[:k]]
