"""The images of one step of a run, loaded again by their numbers, as the run saw them."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkernel.datasets import EpochSampler
from mmkernel.engine.process_state import seed_everything
from mmkernel.engine.runner import Runner
from mmkernel.zoo.files import CheckpointError

OF_WORKERS = ('num_workers', 'persistent_workers', 'prefetch_factor')


@dataclass
class Piece:
    """The rows that go through the encoder together, and the random state that they begin with (None: it goes on)."""

    sample_index: list[int]
    random_state: dict[str, Tensor] | None


class StepData:
    """The data set of ``cfg`` and the pieces of each batch of the accumulation window that ``records`` tell of.

    Every draw of ours follows from (seed, epoch, index, view), so the views are those of the run. ValueError if the data set has
    not the number of images that ``meta`` says.
    """

    def __init__(self, cfg: Any, meta: dict, records: list[dict]) -> None:
        self.meta = meta
        loader = {key: value for key, value in cfg['train_dataloader'].items() if key not in OF_WORKERS}
        self.loader = Runner.build_dataloader({**loader, 'num_workers': 0}, meta['seed'])
        self.dataset = getattr(self.loader.dataset, '_dataset', self.loader.dataset)
        self.window = [*self._pieces(records)]
        if len(self.dataset) != meta['images'] or max(self.indices) >= meta['images']:
            raise ValueError(
                f'The run was trained on {meta["images"]} images, the data set of the config has {len(self.dataset)}: it is '
                'another one. Name its place: --cfg-options train_dataloader.dataset.source.root=/data/train.'
            )
        seed_everything(meta['seed'], meta['epoch'], records[0]['rank'])

    def _pieces(self, records: list[dict]) -> Iterator[list[Piece]]:
        """Of each batch: a virtual one has several of each process."""
        for steps in zip(*(record['window'] for record in records), strict=False):
            if len({step['iteration'] for step in steps}) > 1:
                raise CheckpointError('The records of the processes are of different iterations.')
            if not all(any(step['sample_index']) for step in steps):
                raise ValueError('The batches of the run had no sample_index: nobody knows which images they held.')
            parts = [[(part, step['random_state']) for part in step['sample_index']] for step in steps]
            if self.meta['batch_norm'] == 'all':
                together = zip(*parts, strict=True)
                parts = [[(sum((part for part, _ in same), []), same[0][1]) for same in together]]
            yield [Piece(part, None if j else state) for own in parts for j, (part, state) in enumerate(own)]

    def batch(self, piece: Piece) -> dict:
        return self.loader.collate_fn([self._item(i) for i in piece.sample_index])

    def _item(self, i: int, dataset: Any = None) -> dict:
        by_epoch = isinstance(self.loader.sampler, EpochSampler)
        return (dataset or self.dataset)[(self.meta['epoch'], i) if by_epoch else i]

    @property
    def indices(self) -> list[int]:
        """Sample indices of the step, in the order of its rows."""
        return [i for pieces in self.window for piece in pieces for i in piece.sample_index]

    def name(self, i: int) -> str:
        """The file or record of image i, where its source says that."""
        source = getattr(self.dataset, 'source', None)
        return source.name(i) if source is not None else f'record {i}'

    def view_names(self, views: list[int]) -> list[str]:
        names = getattr(self.dataset, 'view_names', [])
        return [f'{v} ({names[v]})' if v < len(names) else str(v) for v in views]

    def plot(self, path: str, images: list[int]) -> None:
        """A page of all views of some images. ValueError where they are no pictures of bytes."""
        from mmkernel.visualization.view_sheet import view_sheet  # the package imports matplotlib: a second

        whole = copy.copy(self.dataset)
        whole.finish = None  # nothing is left to a device
        views = [torch.stack(view) for view in zip(*(self._item(i, whole)['inputs'] for i in images), strict=True)]
        if any(view.dtype != torch.uint8 for view in views):
            raise ValueError(f'a picture shows views of uint8, those of {type(whole).__name__} are {views[0].dtype}.')
        view_sheet(path, views, getattr(whole, 'view_names', ['view'] * len(views)))
