"""A short config that trains a recipe of the package on images of one's own: what it changes, and its text."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from mmengine.config import Config

from mmkernel.checks import did_you_mean
from mmkernel.engine.learning_rates import describe_scaling
from mmkernel.zoo.catalogue import root
from mmkernel.zoo.config_text import config_text

SMALL = 64  # px, up to which recipes for small images are taken
SMALL_STEM = 48  # px, up to which a ResNet has a 3x3 stem: at 64 it would take 15 times the arithmetic of the 7x7 one
STEPS_OF_A_LOOK = 50
COLOURS = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
GREY = dict(mean=[0.449], std=[0.226])


class Choice(NamedTuple):
    """What was asked for, and what was found out about images and machine."""

    images: int
    source: dict[str, Any]  # of the training
    parts: dict[str, dict]  # of the evaluation: train and test where there are labels, else test alone
    grey: bool
    native: bool  # the images are about as large as the views
    size: int
    backbone: dict[str, Any]
    unit: int  # px: sides of smaller crops are multiples of it
    batch: int  # of one process
    processes: int
    epochs: int
    workers: int
    precision: str
    seed: int | None


@cache
def recipes() -> dict[str, list[str]]:
    """{method: [config for small views, for larger ones]}."""
    return yaml.safe_load((root() / 'configs/own_data.yml').read_text())


def recipe_file(name: str | None, size: int) -> str:
    """'method/config.py' of a method, or of 'method/config'; ValueError with the nearest names, and all."""
    known = recipes()
    name = name or next(iter(known))
    if name in known:
        return f'{name}/{known[name][size > SMALL]}.py'
    name = name.removeprefix('configs/').removesuffix('.py')
    method, _, config = name.partition('/')
    folder = root() / 'configs' / method
    if config and method in known and (folder / f'{config}.py').is_file():
        return f'{name}.py'
    near = [f'{method}/{path.stem}' for path in sorted(folder.glob('*.py'))] if config and method in known else known
    hint = did_you_mean(name, near, n=3)
    if method not in known and folder.is_dir():
        hint = f'What configs/{method} trains on is not views of whole images in any size: inherit from one of its configs.'
    one = f'{next(iter(known))}/{known[next(iter(known))][1]}'
    raise ValueError(
        f"There is no recipe '{name}'. {hint} Recipes: {', '.join(known)}; or one config of them, such as {one} "
        '(mmkernel config list).'
    )


def scaled_views(base: Mapping, choice: Choice) -> dict[str, Any]:
    """Sizes of all views, the largest ``size``; small views whose recipe is one of large views lose their blur."""
    views = {name: view for name, view in base['train_dataloader']['dataset']['views'].items() if view is not None}
    if any(not view.get('size') or view.get('stride') for view in views.values()):
        raise ValueError(
            'This recipe makes views of a grid of patches, or as large as their images: --size cannot tell their sizes. Write a '
            'config that inherits from it, and gives train_dataloader.dataset its source (docs/your_own_data.md).'
        )
    largest = max(max(view['size'], (view.get('parent') or {}).get('size', 0)) for view in views.values())
    factor = choice.size / max(view['size'] for view in views.values())

    def side(old: int) -> int:
        new = old * factor
        return choice.size if round(new) == choice.size else max(round(new / choice.unit), 1) * choice.unit

    changed: dict[str, Any] = {}
    for name, view in views.items():
        new: dict[str, Any] = dict(size=side(view['size']))
        if 'parent' in view:
            new |= dict(parent=dict(size=side(view['parent']['size'])), jitter=int(view.get('jitter', 0) * factor))
        if resize := (view.get('crop') or {}).get('resize'):
            new['crop'] = dict(resize=round(resize * factor))
        ops = view.get('ops') or {}
        if choice.size <= SMALL < largest:
            new |= dict(ops={key: None for key, op in ops.items() if op and op['type'] == 'GaussianBlur'})
        changed[name] = {key: value for key, value in new.items() if value not in ({}, view.get(key))}
    return {name: new for name, new in changed.items() if new}


def fitted_model(base: Mapping, choice: Choice) -> dict[str, Any]:
    """The backbone; and queues, clusters and prototypes that are no more than the images."""
    head, rows = base['model'].get('head') or {}, choice.batch * choice.processes
    few, whole = max(choice.images // 10, 2), max(choice.images // 2 // rows, 1) * rows
    new: dict[str, Any] = {}
    for key in ('num_clusters', 'num_prototypes'):
        old = head.get(key)
        if old is not None and max(old if isinstance(old, (list, tuple)) else [old]) > few:
            new[key] = tuple(min(n, few) for n in old) if isinstance(old, (list, tuple)) else few
    if head.get('queue_length') and (head['queue_length'] > whole or head['queue_length'] % rows):
        new['queue_length'] = min(whole, max(head['queue_length'] // rows, 1) * rows)
    if length := (head.get('queue') or {}).get('length'):
        if length > whole or length % rows:
            new['queue'] = dict(length=min(whole, max(length // rows, 1) * rows))
    return dict(backbone=dict(_delete_=True, **choice.backbone), **(dict(head=new) if new else {}))


def looks(choice: Choice) -> int:
    """Epochs from one look of the monitors to the next: about ten looks in a run, none before fifty steps, one at the end."""
    steps = choice.images // (choice.batch * choice.processes) * choice.epochs
    wanted = choice.epochs / min(max(steps // STEPS_OF_A_LOOK, 1), 10)
    return next(n for n in range(1, choice.epochs + 1) if choice.epochs % n == 0 and n >= wanted)


def fitted_hooks(base: Mapping, choice: Choice) -> dict[str, Any]:
    """Clocks of hooks in the length of the run; and the monitor of labels where there are any."""
    hooks, was, every = {}, base['train_cfg']['max_epochs'], looks(choice)
    for name, hook in (base.get('default_hooks') or {}).items():
        if hook and hook['type'] == 'QueueHook':
            hooks[name] = dict(start_epoch=hook.get('start_epoch', 15) * choice.epochs // was)
        if hook and hook['type'] == 'FreezeHook':
            layers = {key: dict(epochs=1) for key, length in hook['layers'].items() if 'steps' in length}
            hooks |= {name: dict(layers=dict(_delete_=True, **layers))} if layers else {}
    if 'train' in choice.parts:
        hooks['knn'] = dict(type='KNNMonitorHook', interval=every)
    elif (base.get('default_hooks') or {}).get('knn'):
        hooks['knn'] = None
    return hooks | dict(best=dict(type='KeepBestHook', interval=every, images=500))


def schedule(base: Mapping, choice: Choice) -> dict[str, Any]:
    given = base.get('param_scheduler')
    warmup = given.get('warmup_epochs', 0) if isinstance(given, Mapping) else 10
    short = dict(warmup_epochs=min(warmup, choice.epochs // 10))
    if isinstance(given, Mapping) and given['type'] == 'WarmupCosineLR':
        return short
    return dict(_delete_=True, type='WarmupCosineLR', **short, end_factor=0.0)


def changes(base: Mapping, choice: Choice) -> Iterator[tuple[str, str, Any]]:
    """(comment, key, value) of all that the config says beside its base. '@images' stands for the variable of that name."""
    views = scaled_views(base, choice)
    data = dict(source='@source', **(dict(views=views) if views else {}))
    rows = choice.batch * choice.processes
    loader = dict(batch_size=choice.batch, num_workers=choice.workers, dataset=data)
    if base['train_dataloader'].get('num_batch_per_epoch'):
        loader['num_batch_per_epoch'] = None
    rate = describe_scaling(base.get('lr_scaling'), base['optim_wrapper']['optimizer']['lr'], rows)
    said = f'{choice.images // rows} steps of {rows} images in an epoch; learning rate {rate}'
    yield said, 'train_dataloader', loader
    yield f'any network of timm{_stem(choice)}', 'model', fitted_model(base, choice)
    yield '' if choice.grey else "ImageNet's; mmkernel data check prints those of your images", 'data_preprocessor', (
        GREY if choice.grey else COLOURS)  # fmt: skip
    yield '', 'train_cfg', dict(max_epochs=choice.epochs)
    yield '', 'param_scheduler', schedule(base, choice)
    yield "'bfloat16': quicker on a GPU, 'float32': on a CPU", 'optim_wrapper', dict(precision=choice.precision)
    resize = choice.size if choice.native else round(choice.size * 8 / 7)
    transform = dict(type='CenterView', resize=resize, crop=choice.size, interpolation='bicubic')
    said = 'labels are read by the kNN monitor alone' if 'train' in choice.parts else 'what the diagnosis looks at'
    part = dict(_delete_=True, **choice.parts, transform=transform, batch_size=64, num_workers=choice.workers)
    yield said, 'evaluation', part
    said = 'best_mmd2.pth: the checkpoint that a criterion without labels likes best'
    yield said, 'default_hooks', fitted_hooks(base, choice)
    if choice.seed is not None:
        yield '', 'randomness', dict(seed=choice.seed)


def _stem(choice: Choice) -> str:
    if SMALL_STEM < choice.size <= SMALL and choice.backbone['model_name'] in ('resnet18', 'resnet34', 'resnet50'):
        return '; small_images=True: a 3x3 stem, for small things, 15 times the arithmetic'
    return ''


def recipe_text(name: str, base: Config, choice: Choice, place: str, command: str) -> str:
    """The file: a docstring with the command that wrote it, ``_base_``, the images, and ``changes``."""
    method = name.removesuffix('.py')
    about = f'{method}, changed for {choice.images:,} images in {Path(place).name} and {choice.size} px. Written by'
    words = f'{about}\n\n{command}\n'.replace('\\', '\\\\').replace('"', '\\"')  # inside quotes
    text = f'"""{words}"""\n\n_base_ = {f"mmkernel::{name}"!r}\n\n{config_text(dict(images=choice.source))}'
    for comment, key, value in changes(base.to_dict(), choice):
        text += (f'# {comment}\n' if comment else '') + config_text({key: _marked(value, choice.source)})
    return text.replace("'@images'", 'images').replace("'@source'", 'dict(_delete_=True, **images)')


def _marked(value: Any, source: dict) -> Any:
    """``value`` with '@images' in place of ``source``."""
    if value == source:
        return '@images'
    return {key: _marked(item, source) for key, item in value.items()} if isinstance(value, dict) else value
