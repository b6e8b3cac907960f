"""The loader of a training set, and the order of an epoch."""

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from mmengine.dataset import default_collate
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import default_collate as torch_default_collate

from mmkernel.registry import DATA_SAMPLERS, FUNCTIONS

from .draws import ORDER, generator, rows_by_label, smallest_keys

_AT_ONCE = 1 << 16


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
        self.images, self.shuffle, self.round_up, self.epoch, self.start = len(dataset), shuffle, round_up, 0, 0
        self.seed = sync_random_seed() if seed is None else seed

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """To be called before each epoch, on all ranks. The first ``start`` images of this rank are left out: used already."""
        self.epoch, self.start = int(epoch), int(start)

    def order(self) -> np.ndarray:
        """Dataset indices of the current epoch for all ranks together."""
        if not self.shuffle:
            return np.arange(self.images)
        return smallest_keys(generator(self.seed, self.epoch, purpose=ORDER), np.arange(self.images))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, order = self.epoch, self.order()
        if self.num_samples is not None or self.round_up:
            order = np.resize(order, len(self) * self.world_size)
        own = order[self.rank :: self.world_size][self.start :]
        # some at a time: ten million numbers of Python would fill 400 MB
        return ((epoch, index) for k in range(0, len(own), _AT_ONCE) for index in own[k : k + _AT_ONCE].tolist())

    def __len__(self) -> int:
        if self.num_samples is not None:
            return self.num_samples
        left = self.images if self.round_up else self.images - self.rank
        return math.ceil(left / self.world_size)


@DATA_SAMPLERS.register_module()
class BalancedSampler(EpochSampler):
    """As ``EpochSampler``, but each label equally often, so that large clusters do not dominate.

    Caron et al., Deep clustering for unsupervised learning of visual features, ECCV 2018. Each label that occurs gets the
    same number of images, drawn without repetition where it has enough of them; the whole is shuffled and cut to the
    length of the data set. Negative labels are left out. Before ``set_labels`` every image comes once.
    """

    labels: np.ndarray | None = None

    def set_labels(self, labels: np.ndarray) -> None:
        """(n,) integers, one per image; between epochs, the same on all ranks."""
        if len(labels) != self.images or not (np.asarray(labels) >= 0).any():
            raise ValueError(f'Expected {self.images} labels, not all of them negative; got {len(labels)}.')
        self.labels = np.asarray(labels)

    def order(self) -> np.ndarray:
        if self.labels is None:
            return super().order()
        rng = generator(self.seed, self.epoch, purpose=ORDER)
        groups = [rows for label, rows in rows_by_label(self.labels).items() if label >= 0]
        share = self.images // len(groups) + 1
        parts = [
            smallest_keys(rng, group, share) if len(group) >= share
            else group[(rng.random(share) * len(group)).astype(np.int64)]
            for group in groups
        ]  # fmt: skip
        return smallest_keys(rng, np.concatenate(parts), self.images)


@FUNCTIONS.register_module()
def collate_views(batch: Sequence[Any]) -> Any:
    """mmengine's ``default_collate``, but images keep their order (H, W, C) of memory: one plain copy, into shared memory.

    V views (C, H, W) of B items -> V tensors (B, C, H, W), channels_last where the items are. Anything else as there.
    """
    if not isinstance(batch[0], Mapping) or 'inputs' not in batch[0]:
        return default_collate(batch)
    rest = default_collate([{key: value for key, value in item.items() if key != 'inputs'} for item in batch])
    return dict(inputs=[_stack(views) for views in zip(*(item['inputs'] for item in batch), strict=True)], **rest)


def _stack(views: Sequence[Tensor]) -> Tensor:
    rows = [view.permute(1, 2, 0) for view in views if view.ndim == 3 and view.dtype == torch.uint8]
    if len(rows) < len(views) or not all(row.is_contiguous() for row in rows):
        return default_collate(views)
    return torch_default_collate(rows).permute(0, 3, 1, 2)  # in a worker it stacks into shared memory


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


def build_dataloader(dataloader: Any, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
    """mmengine's, with workers that draw other numbers in each epoch. ``seed``: of the sampler and the data set."""
    if isinstance(dataloader, DataLoader):
        return dataloader
    dataloader = part_of_epoch(dataloader)
    if isinstance(collate := dataloader.get('collate_fn'), Mapping) and isinstance(collate['type'], str):
        dataloader['collate_fn'] = dict(collate, type=FUNCTIONS.get(collate['type']))  # mmengine knows its own alone
    if not dataloader.get('num_workers'):  # torch refuses these two without workers
        dataloader.pop('prefetch_factor', None)
        dataloader.pop('persistent_workers', None)
    if not torch.cuda.is_available():
        dataloader.pop('pin_memory', None)  # torch warns: there is nothing to pin for
    loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
    if 'worker_init_fn' not in dataloader:
        # torch seeds Python and NumPy in each worker and epoch; mmengine's function would repeat the draws of the first epoch
        loader.worker_init_fn = None
    # workers are seeded from a stream of their own (SeedHook sets it): starting them, which happens at other times in a
    # resumed run, must not shift the draws of dropout
    loader.generator = torch.Generator()
    dataset = getattr(loader.dataset, '_dataset', loader.dataset)  # num_batch_per_epoch wraps it
    if seed is not None and hasattr(dataset, 'seed'):
        dataset.seed = seed
    return loader


def check_dataloader(dataloader: DataLoader) -> None:
    """ValueError unless there is at least one batch; mmengine would end in a division by zero much later."""
    if len(dataloader):
        return
    images, size = len(dataloader.sampler), dataloader.batch_size
    raise ValueError(
        f'{images} images per process make no batch of {size} with drop_last=True. Set train_dataloader.batch_size to '
        f'at most {images}, use fewer processes, or check that the data folder is complete.'
    )
