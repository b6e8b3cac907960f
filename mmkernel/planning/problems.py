"""Problems of a run that its dry run lists, each with the change that takes it away."""

from typing import Any, NamedTuple

import torch
from mmengine.config import Config

Change = dict[str, Any]  # key of a config -> value


class Problem(NamedTuple):
    """An error that a run would have on this machine."""

    text: str
    change: Change  # empty where no option mends it

    def __str__(self) -> str:
        return f'{self.text}: --cfg-options {words(self.change)}' if self.change else self.text


def words(change: Change) -> str:
    """As it is written after --cfg-options."""
    return ' '.join(f'{key}={value}' for key, value in change.items())


def problems_of_data(
    images: int | None, batch: int, processes: int, micro_batches: int, batches: int | None
) -> list[Problem]:
    """``batch``: of one process; ``micro_batches`` of it make one step; ``batches``: of an epoch, where the config says it."""
    if images is None:
        return []
    most, rows = images // processes, batch * processes
    if batch > most:
        text = f'{images} images are less than one batch per process'
        if most < 2:
            return [Problem(f'{text}, whatever its size: the run needs more images, or fewer processes', {})]
        change: Change = {'train_dataloader.batch_size': 1 << most.bit_length() - 1}
        change |= {'train_cfg.virtual_batch': None} if micro_batches > 1 else {}
        return [Problem(text, change | ({'train_dataloader.num_batch_per_epoch': None} if batches else {}))]
    found = []
    if (batches or 0) * rows > images:
        change = {'train_dataloader.num_batch_per_epoch': max(images // rows // micro_batches, 1) * micro_batches}
        found.append(Problem(f'num_batch_per_epoch={batches} asks for more than {images} images', change))
    if images // rows < micro_batches:
        text = f'{images} images are less than one batch per process, which virtual_batch makes {micro_batches} times as large'
        found = [Problem(text, {'train_cfg.virtual_batch': images // rows * rows})]
    elif batches and batches < micro_batches:
        text = f'num_batch_per_epoch={batches} is less than the {micro_batches} micro-batches of one step'
        found = [Problem(text, {'train_dataloader.num_batch_per_epoch': micro_batches})]
    return found


def problems_here(cfg: Config) -> list[Problem]:
    """What this machine lacks."""
    if cfg.optim_wrapper.get('precision') == 'float16' and not torch.cuda.is_available():
        text = "precision='float16' needs a GPU, and here is none (--gpus N: for a machine that has N)"
        return [Problem(text, {'optim_wrapper.precision': 'bfloat16'})]
    return []
