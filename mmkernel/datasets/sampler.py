"""The order of an epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sized
from typing import Any

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmkernel.registry import DATA_SAMPLERS

from .draws import ORDER, generator
from .label_checks import rows_by_label


@DATA_SAMPLERS.register_module()
class EpochSampler(Sampler):
    """(epoch, index) of each image of this rank; the epoch travels with the index, so that persistent workers know it.

    All ranks make the same permutation from (seed, epoch); rank r takes positions r, r + W, r + 2W, ...
    round_up=True: the first images are repeated until all ranks have equally many, as torch's DistributedSampler does;
    False: none are, and ranks may differ by one image.
    num_samples: images of each rank in an epoch, the first of its permutation, so that every epoch has others; None: all.
    ``num_batch_per_epoch`` of a dataloader sets it.
    ValueError if the dataset is empty, or smaller than num_samples of all ranks.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = 0,
        round_up: bool = True,
        num_samples: int | None = None,
    ) -> None:
        self.rank, self.world_size = get_dist_info()
        if len(dataset) == 0:
            raise ValueError(f'{type(dataset).__name__} is empty: there is nothing to sample. Check its source.')
        if num_samples is not None and not 1 <= num_samples * self.world_size <= len(dataset):
            raise ValueError(
                f'{num_samples} images of an epoch for each of {self.world_size} process(es), of a data set of '
                f'{len(dataset)}: lower num_batch_per_epoch of the dataloader (num_samples of the sampler), or drop it.'
            )
        self.num_samples = num_samples
        self.images, self.shuffle, self.round_up, self.epoch = len(dataset), shuffle, round_up, 0
        self.seed = sync_random_seed() if seed is None else seed

    def set_epoch(self, epoch: int) -> None:
        """To be called before each epoch, on all ranks."""
        self.epoch = int(epoch)

    def order(self) -> np.ndarray:
        """Dataset indices of the current epoch for all ranks together, padded."""
        if self.shuffle:
            # sorted uniforms: numpy promises the stream of `random`, but not that of `permutation`, across its versions
            order = generator(self.seed, self.epoch, purpose=ORDER).random(self.images).argsort(kind='stable')
        else:
            order = np.arange(self.images)
        return self._shared(order)

    def _shared(self, order: np.ndarray) -> np.ndarray:
        """As many of the order as all ranks take, or padded to it."""
        if self.num_samples is not None or self.round_up:
            return np.resize(order, len(self) * self.world_size)
        return order

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        return ((epoch, index) for index in self.order()[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        if self.num_samples is not None:
            return self.num_samples
        left = self.images if self.round_up else self.images - self.rank
        return math.ceil(left / self.world_size)


def part_of_epoch(dataloader: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a dataloader whose ``num_batch_per_epoch`` is the sampler's ``num_samples``.

    mmengine would take the first images of the data set in every epoch, of few classes where the set is sorted. Other samplers
    than ours are left to it.
    """
    dataloader, sampler = dict(dataloader), dataloader.get('sampler')
    batches, batch = dataloader.get('num_batch_per_epoch'), dataloader.get('batch_size')
    if batches and batch and isinstance(sampler, Mapping):
        kind = DATA_SAMPLERS.get(sampler['type']) if isinstance(sampler['type'], str) else sampler['type']
        if isinstance(kind, type) and issubclass(kind, EpochSampler):
            dataloader.pop('num_batch_per_epoch')
            dataloader['sampler'] = dict(sampler, num_samples=batches * batch)
    return dataloader


@DATA_SAMPLERS.register_module()
class BalancedSampler(EpochSampler):
    """As ``EpochSampler``, but each label equally often, so that large clusters do not dominate.

    Caron et al., Deep clustering for unsupervised learning of visual features, ECCV 2018. Each label that occurs gets the
    same number of images, drawn without repetition where it has enough of them; the whole is shuffled and cut to the
    length of the data set. Negative labels are left out. Before ``set_labels`` every image comes once.
    """

    labels: np.ndarray | None = None

    def set_labels(self, labels: np.ndarray) -> None:
        """(n,) integers, one per image; between epochs, on all ranks alike."""
        if len(labels) != self.images or not (np.asarray(labels) >= 0).any():
            raise ValueError(f'Expected {self.images} labels, not all of them negative; got {len(labels)}.')
        self.labels = np.asarray(labels)

    def order(self) -> np.ndarray:
        if self.labels is None:
            return super().order()
        rng = generator(self.seed, self.epoch, purpose=ORDER)
        groups = [rows for label, rows in rows_by_label(self.labels).items() if label >= 0]
        share = self.images // len(groups) + 1
        order = np.concatenate([_pick(rng, group, share) for group in groups])
        return self._shared(order[rng.random(len(order)).argsort(kind='stable')][: self.images])


def _pick(rng: np.random.Generator, group: np.ndarray, count: int) -> np.ndarray:
    """``count`` of the group, without repetition if it is large enough."""
    if len(group) >= count:
        return group[rng.random(len(group)).argsort(kind='stable')[:count]]
    return group[(rng.random(count) * len(group)).astype(np.int64)]
