"""How many images the sets of a config have, as far as it can be told without them."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from mmengine.config import Config

from mmkernel.engine.allowed_keys import find_component
from mmkernel.registry import DATASETS


def number_of_images(cfg: Config) -> int | None:
    """``num_samples`` of the config, else what the source has when complete, else what is on disk, else None."""
    if cfg.get('num_samples'):
        return int(cfg.num_samples)
    return images_of(
        cfg.train_dataloader.dataset.get('source', cfg.train_dataloader.dataset), 'train_dataloader.dataset.source'
    )


def images_of(source: Any, where: str) -> int | None:
    """What a source has when complete, else what is on disk, else None."""
    kind, _ = find_component(source.type, where)
    expected = getattr(kind, 'expected_length', None)
    length = expected(**{k: v for k, v in source.items() if k != 'type'}) if expected else None
    if length is not None:
        return length
    with suppress(OSError, RuntimeError, ValueError):  # no such data here
        return len(DATASETS.build(source))
    return None


def evaluation_sizes(cfg: Config) -> list[tuple[str, str]]:
    """Images and batches of the labelled sets."""
    part, rows = cfg.get('evaluation') or {}, []
    batch = part.get('batch_size', 256)
    for name in ('train', 'test'):
        if isinstance(part.get(name), Mapping):
            images = images_of(part[name], f'evaluation.{name}')
            text = (
                'unknown images' if images is None else f'{images:,} images, {-(-images // batch):,} batches of {batch}'
            )
            rows.append((f'evaluation.{name}', text))
    return rows
