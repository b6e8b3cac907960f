"""Run the first step of a training on the meta device, without memory: errors of training show here."""

import copy
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmkernel.datasets import Source
from mmkernel.engine.allowed_keys import ConfigError
from mmkernel.engine.checkpoint import start_from
from mmkernel.engine.clipping import check_for_shards
from mmkernel.engine.learning_rates import built_wrapper
from mmkernel.engine.runner import Runner
from mmkernel.engine.schedule import build_schedules
from mmkernel.engine.wrapping import place_views
from mmkernel.models import Embeddings
from mmkernel.models.feature_extractor import image_channels
from mmkernel.models.image_sizes import check_sizes
from mmkernel.models.joint_embedding import model_config
from mmkernel.registry import DATASETS, MODELS
from mmkernel.zoo.files import read_checkpoint

SIDE = 256  # of the noise image that stands for one of the data set
# Words of the errors of torch and Python when a meta tensor is asked for its values.
NEEDS_VALUES = re.compile(r'meta(?!info|data|file)|__format__|__round__|converted to an index', re.IGNORECASE)


@contextmanager
def refused(what: str) -> Iterator[None]:
    """An error inside would also end training: it becomes a ConfigError. Errors that only meta tensors cause, pass."""
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError, BufferError) as error:
        text = str(error)
        if not NEEDS_VALUES.search(text):
            raise ConfigError(text if text.startswith(what) else f'{what}: {text or type(error).__name__}') from error


def build_on_meta(cfg: Config) -> nn.Module:
    """The model of a config with shapes but no memory, no weights read, nothing downloaded."""
    model = copy.deepcopy(model_config(cfg))
    if model.get('backbone', {}).get('pretrained'):
        model['backbone']['pretrained'] = False
    with DefaultScope.overwrite_default_scope('mmkernel'):
        with refused('model'), torch.device('meta'):
            return MODELS.build(copy.deepcopy(model))
        with refused('model'):  # one whose weights begin with values that are computed
            return MODELS.build(model).to('meta')


def try_weights(cfg: Config, model: nn.Module) -> str:
    """What ``load_from`` of a run would find in its file; ConfigError if it would refuse it. '' without such a file here."""
    path = cfg.get('load_from')
    if not path or cfg.get('resume') or not Path(str(path)).is_file():
        return ''
    with refused('load_from'), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # weights without memory take no values
        return start_from(copy.deepcopy(model), read_checkpoint(path), str(path))
    return ''


def rehearse(
    cfg: Config, model: nn.Module, batch: int, rows: int, steps: int | None, images: int, virtual: bool = False
) -> None:
    """ConfigError if loader, optimizer, schedules, views, encoder or head of a run would stop at its beginning.

    ``model``: on the meta device. ``batch``: B, ``rows``: N, ``steps``: of an epoch, ``images``: of one process, ``virtual``:
    a step takes several batches.
    """
    with DefaultScope.overwrite_default_scope('mmkernel'):
        with refused('train_dataloader'):  # the number of images of one process; none is read
            Runner.build_dataloader({**cfg.train_dataloader, 'dataset': range(images)})
        _optimizer_and_schedules(cfg, model, steps, virtual)
        views = None
        with refused('The views of train_dataloader.dataset'):
            views = views_of(cfg, model)
        if views and _is_ours(type(model)):
            play_step(model, views, batch, rows)


def play_step(model: nn.Module, views: list[tuple[int, ...]], batch: int, rows: int) -> None:
    """Forward pass, loss and the head's backward pass on meta tensors: views of shapes (C, H, W), ``batch`` of each."""
    inputs = [torch.empty(batch, *shape, device='meta', dtype=torch.uint8) for shape in views]
    index = torch.arange(batch, device='meta')
    model.train()
    sizes = ', '.join(dict.fromkeys(f'{h} x {w}' for _, h, w in views))
    # autocast does not know the meta device
    with mock.patch.object(torch, 'autocast', return_value=nullcontext()):
        embeddings = None
        with refused(f'The encoder, in the first step ({len(views)} views of {sizes} px, {batch} images)'):
            normalize = getattr(getattr(model, 'data_preprocessor', None), 'normalize', Tensor.float)
            inputs = [normalize(view) for view in inputs]
            check_sizes(getattr(model, 'backbone', model), [shape[1:] for shape in dict.fromkeys(views)])
            if hasattr(model, 'embeddings') and hasattr(model, 'score'):
                embeddings = model.embeddings(inputs, index)
            else:
                taken, classes = inspect.signature(model.forward).parameters, getattr(model, 'num_classes', None)
                labels = dict(label=torch.zeros_like(index)) if 'label' in taken else {}
                if 'targets' in taken and classes:  # several classes for an image
                    labels['targets'] = torch.zeros(batch, classes, device='meta', dtype=torch.int64)
                model(inputs=inputs, sample_index=index, **labels)
        if embeddings is not None:
            with refused(f'The head, in the first step ({len(views)} views, {rows} rows of all processes)'):
                losses = model.score(_of_all_processes(embeddings, rows))
                sum(value for name, value in losses.items() if 'loss' in name).backward()


def _of_all_processes(embeddings: Embeddings, rows: int) -> Embeddings:
    """The same with N rows, as leaves of the head's graph; shared tensors stay shared."""
    leaves: dict[int, Tensor] = {}
    for x in (embeddings.online, embeddings.predicted, embeddings.target):
        leaves.setdefault(id(x), x.new_empty(x.shape[0], rows, x.shape[2]).requires_grad_(x.requires_grad))
    fields = {name: leaves[id(getattr(embeddings, name))] for name in ('online', 'predicted', 'target')}
    return replace(embeddings, **fields, sample_index=torch.arange(rows, device='meta'))


def views_of(cfg: Config, model: nn.Module) -> list[tuple[int, ...]] | None:
    """(C, H, W) of each view that the data set makes of a noise image; None if unknown."""
    dataset = dict(cfg.train_dataloader.dataset)
    views = dataset.get('views')
    if not _is_ours(DATASETS.get(dataset['type'])) or not isinstance(views, Mapping):
        return None
    if any(view is not None and view.get('size') is None for view in views.values()):
        return None  # without a crop, a view is as large as its image
    made = DATASETS.build({**dataset, 'source': _Noise(image_channels(model) or 3)})
    place_views(made, model)
    return [tuple(view.shape) for view in made[0, 0]['inputs']]


class _Noise(Source):
    """A source of one image, for views to be made of."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.labels, self.channels = [-1], channels

    def read(self, i: int) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, self.channels), dtype=np.uint8)


def _is_ours(kind: type) -> bool:
    """Whether the interface of ``kind`` is known: a user's own class may need more than a rehearsal has."""
    return kind.__module__.startswith('mmkernel.')


def _optimizer_and_schedules(cfg: Config, model: nn.Module, steps: int | None, virtual: bool) -> None:
    """Build them on the meta model, as the Runner does, without its lines in the log."""
    logging.disable(logging.WARNING)
    try:
        with refused('optim_wrapper'):
            gpus = ()  # what needs a GPU, which this machine may lack, is left out
            if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper':
                gpus = ('type', 'loss_scale', 'dtype', 'use_fsdp')
            elif cfg.optim_wrapper.get('precision') == 'float16':
                gpus = ('precision',)
            given = {k: v for k, v in cfg.optim_wrapper.items() if k not in gpus}
            wrapper = built_wrapper(given, model, virtual)
            if hasattr(wrapper, 'optimizer'):  # also of the precision that was left out
                check_for_shards(wrapper.optimizer, cfg.optim_wrapper.get('precision', 'float32'), None)
        if schedules := cfg.get('param_scheduler'):
            with refused('param_scheduler'):
                build_schedules(schedules, wrapper, cfg.train_cfg.get('max_epochs', 1), steps or 1000)
    finally:
        logging.disable(logging.NOTSET)
