"""``mmkernel svm | transformation``: photographs of several classes, and what was done to an image."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from mmengine.config import ConfigDict
from torch import Tensor

from mmkernel.cli.given_data import mode_of, view_of
from mmkernel.cli.judging import (
    NONE,
    All,
    Named,
    Numbers,
    Several,
    Shared,
    Whole,
    Words,
    compare,
    one_process,
    opened,
    place_of_result,
    progress_bar,
    publish,
)
from mmkernel.cli.named_encoder import NamedEncoder
from mmkernel.cli.options import Flag
from mmkernel.cli.terminal import Parameter, console
from mmkernel.datasets import TASKS
from mmkernel.evaluation import amount_table, low_shot_svm, predict_transformations, voc_svm
from mmkernel.evaluation.labels import labels_of
from mmkernel.evaluation.report import svm_table, transformation_table
from mmkernel.evaluation.svm import COSTS, SHOTS
from mmkernel.registry import DATASETS

Task = Literal[tuple(TASKS)]


def svm(
    *checkpoint: Named,
    root: str = 'data/voc2007',
    classes: Words | None = None,
    size: int | None = None,
    costs: Numbers = COSTS,
    low_shot: Flag = False,
    shots: Whole = SHOTS,
    draws: int = 5,
    jobs: int = 1,
    shared: Annotated[Shared, Parameter(name='*')] = Shared(),  # noqa: B008
) -> None:
    """Linear support vector machines on photographs of several classes: VOC07 mAP, and low-shot mAP (Goyal et al., ICCV 2019).

    Args:
        root: VOCdevkit, VOCdevkit/VOC2007 or the folder above.
        classes: only these; default: all.
        size: crop of this side after a resize of 8/7 of it; default: as the config.
        costs: default: the 19 values of the code of Goyal et al.; VISSL's are 0.01 0.1 1 10 100 1000.
        low_shot: k positives per class instead of all.
        shots: numbers k of --low-shot.
        draws: of --low-shot.
        jobs: machines trained side by side; -1: one per core.
    """
    this = opened(checkpoint, shared, 'own')
    voc = dict(type='VOC2007', root=root, classes=list(classes) if classes else None, mode=mode_of(this.cfg))
    view = dict(type='CenterView', interpolation='bicubic', resize=round(size * 256 / 224), crop=size) if size else None
    parts = {part: dict(voc, split=split) for part, split in (('train', 'trainval'), ('test', 'test'))}
    this = with_images(this, dict(parts, transform=view or view_of(this.cfg)))
    built = [DATASETS.build(this.cfg.evaluation[part]) for part in ('train', 'test')]
    name = 'voc07_low_shot_svm' if low_shot else 'voc07_svm'
    place_of_result(name, this, shared)
    extra = dict(shots=list(shots), draws=draws) if low_shot else {}
    rows = compare(
        this, shared, partial(machines, built, dict(costs=list(costs), seed=shared.seed, jobs=jobs, **extra))
    )
    title = 'VOC07 low-shot SVM: mAP in percent, positives per class'
    images = dict(train=len(built[0]), test=len(built[1]), classes=built[0].classes)
    table = amount_table(rows, title) if low_shot else svm_table(rows)
    publish(name, this, shared, rows, table, costs=list(costs), images=images)


def machines(built: list, settings: dict[str, Any], *data: Tensor) -> dict:
    """Scores of one encoder; the labels that came with the features are -1, a photograph having several classes."""
    train_x, _, test_x, _ = data
    rows = train_x, labels_of(built[0]), test_x, labels_of(built[1])
    with progress_bar() as bar:
        task = bar.add_task('support vector machines')
        note = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        return (low_shot_svm if 'shots' in settings else voc_svm)(*rows, progress=note, **settings)


def with_images(this: NamedEncoder, parts: dict[str, Any]) -> NamedEncoder:
    """The same with other parts of ``evaluation``."""
    cfg = deepcopy(this.cfg)
    cfg.evaluation = ConfigDict({**(cfg.get('evaluation') or {}), **parts})
    return replace(this, cfg=cfg)


def transformation(
    *checkpoint: Named,
    tasks: Annotated[tuple[Task, ...], Several] = tuple(TASKS),
    noise_sigma: float = 25.0,
    hidden: int = 2048,
    epochs: int = 30,
    shared: All = NONE,
) -> None:
    """Which transformation was applied to an image: an MLP on features h and embeddings g(h) (Chen et al., ICML 2020, table 3).

    Args:
        noise_sigma: grey levels of 255.
        hidden: width of the MLP.
    """
    one_process('Transformation prediction')
    this = opened(checkpoint, shared, 'any', 'neck')
    place_of_result('transformation', this, shared)
    settings = dict(noise_sigma=noise_sigma, hidden=hidden, epochs=epochs)
    if not (encoders := this.encoders('neck', shared.seed, shared.device)):
        raise ValueError('Features and embeddings of an encoder are compared: name a checkpoint or a config.')
    with progress_bar() as bar:
        task = bar.add_task('features')
        options = dict(seed=shared.seed, cache=shared.kept, device=shared.device, **settings)
        options['progress'] = lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
        rows = predict_transformations(this.cfg, encoders, tasks, **options)
    if 'grey' in tasks and 'grey' not in rows[0]['scores']:
        console.print('grey left out: images of one channel have no colour to lose; not defined.')
    if not rows[0]['scores']:
        raise ValueError('No task is left: nothing to do.')
    publish('transformation', this, shared, rows, transformation_table(rows), **settings)
