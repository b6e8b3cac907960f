"""A few images of each set are tried before a run, and the log says how many images and batches an epoch has."""

from collections.abc import Sequence
from typing import Any

from mmkernel.datasets.sample_checks import check_samples
from mmkernel.engine.allowed_keys import as_config_error
from mmkernel.engine.hooks import dataset_of, unwrap
from mmkernel.engine.process_state import random_state, set_random_state
from mmkernel.evaluation.features import evaluation_dataset
from mmkernel.models.feature_extractor import image_channels
from mmkernel.models.image_sizes import check_sizes, evaluation_size, view_sizes


def look_at_training(runner: Any) -> None:
    """ConfigError where the training images break their contract; before workers start, the same images on all ranks."""
    dataset, loader, W = dataset_of(runner), runner.train_dataloader, runner.world_size
    tried = _tried(runner, dataset, loader.num_workers, 'train_dataloader', view_sizes(runner.cfg))
    images, steps = len(dataset), len(loader)
    left = images - steps * runner.rows
    runner.logger.info(
        f'An epoch: {images:,} images, {steps:,} batches of {runner.rows // W} x {W} process(es)'
        + (f', which leave out {left:,} images, other ones in each epoch' if left > 0 else '')
        + (f'. {tried}.' if tried else '.')
    )


def look_at_evaluation(runner: Any, name: str, source: Any, most: int | None = None) -> None:
    """The same for ``evaluation.train`` or ``.test``, of which at most ``most`` images are taken."""
    part = runner.cfg.evaluation
    dataset, batch = evaluation_dataset(source, part.get('transform')), part.get('batch_size', 256)
    size = evaluation_size(runner.cfg)
    tried = _tried(runner, dataset, part.get('num_workers', 0), f'evaluation.{name}', [size] if size else [])
    taken = len(range(0, len(dataset), -(-len(dataset) // (most or len(dataset)))))
    runner.logger.info(
        f'evaluation.{name}: {len(dataset):,} images'
        + (f', of which {taken:,} are looked at' if taken < len(dataset) else '')
        + f', {-(-taken // batch):,} batches of {batch}. {tried}.'
    )


def _tried(runner: Any, dataset: Any, workers: int, where: str, sizes: Sequence) -> str:
    state = random_state()  # a class of the user's may draw from the generators of the process
    try:
        with as_config_error(f'{where}: '):
            model = unwrap(runner.model)
            check_sizes(getattr(model, 'backbone', model), sizes)
            return check_samples(dataset, image_channels(model), workers)
    finally:
        set_random_state(state)
