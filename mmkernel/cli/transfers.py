"""``mmkernel transfer``: linear classifiers on frozen features of other data sets."""

from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape
from torch import Tensor

from mmkernel import evaluation
from mmkernel.cli.given_data import mode_of
from mmkernel.cli.judging import (
    NONE,
    All,
    Labelled,
    Named,
    Numbers,
    Words,
    compare,
    one_process,
    opened,
    place_of_result,
    progress_bar,
    publish,
)
from mmkernel.cli.named_encoder import NamedEncoder
from mmkernel.cli.tasks import with_images
from mmkernel.cli.terminal import say
from mmkernel.evaluation import TRANSFER_SETS
from mmkernel.evaluation.labels import labels_of
from mmkernel.evaluation.report import transfer_table
from mmkernel.evaluation.transfer_tasks import PENALTIES
from mmkernel.registry import DATASETS


def transfer(
    *checkpoint: Named,
    root: str = 'data',
    sets: Words | None = None,
    penalties: Numbers = PENALTIES,
    shared: All = NONE,
) -> None:
    """Linear transfer to labelled sets, each judged by its own metric (Kornblith et al., CVPR 2019); absent ones are left out.

    L-BFGS, 45 penalties, chosen on validation images, refitted with them. The same sets, fine-tuned: mmkernel classify with
    --protocol finetune_food101, one for each of the twelve.

    Args:
        root: folder above food101/, pets/, voc2007/, ...
        sets: of the twelve; or config, digits, PACK.npz; default: the twelve, or the images of --data or --train.
        penalties: 45 from 1e-6 to 1e5.
    """
    one_process('Transfer to several sets')
    this = opened(checkpoint, shared, 'labelled' if shared.given else 'own')
    place_of_result('transfer', this, shared)
    rows: dict[str, dict] = {}
    left_out: dict[str, str] = {}
    names = list(sets or (['config'] if shared.given else TRANSFER_SETS))
    try:
        for name in names:
            one_set(name, this, shared, root, list(penalties), rows, left_out)
    finally:  # cut short after hours, it leaves what it has
        if rows:
            table = transfer_table(list(rows.values()))
            settings = dict(left_out=left_out, size=shared.size, penalties=list(penalties))
            publish('transfer', this, shared, list(rows.values()), table, **settings)
    if not rows:
        raise FileNotFoundError(f'None of the sets is below {root}: nothing to do.')


def one_set(
    name: str, this: NamedEncoder, shared: Labelled, root: str, penalties: list[float], rows: dict[str, dict],
    left_out: dict[str, str],
) -> None:  # fmt: skip
    """Put the score of each encoder into ``rows`` {encoder: row with scores {set: ...}}, or why not into ``left_out``."""
    parts, metric = set_named(name, this, shared.size, root)
    own = with_images(this, parts)
    try:
        sources = [DATASETS.build(own.cfg.evaluation[part]) for part in ('train', 'test')]
    except FileNotFoundError as error:
        left_out[name] = str(error)
        say(f'[yellow]{name} left out:[/] {escape(str(error))}')
        return
    given = Path(shared.data or shared.train or 'config').stem
    title = given if name == 'config' else Path(name).stem
    for row in compare(own, shared, partial(one_score, shared, metric, penalties, sources)):
        kept = rows.setdefault(row['name'], dict(row, scores={}))
        kept['scores'][title] = row['scores'] | dict(train=len(sources[0]), test=len(sources[1]))


def set_named(name: str, this: NamedEncoder, size: int | None, root: str) -> tuple[dict[str, Any], str]:
    """(new parts of the evaluation of the config, metric) of a set of the suite, 'config', 'digits' or a pack."""
    mode = mode_of(this.cfg)
    if name == 'config':
        if not {'train', 'test'} <= set(this.cfg.get('evaluation') or {}):
            raise ValueError(
                '--sets config: the config names no images; name them: --train A --test B, or --data FOLDER.'
            )
        return {}, 'top1'
    if name == 'digits' and mode != 'L':
        raise ValueError('--sets digits: they have one channel, the images of the config have three.')
    if name == 'digits':
        return {split: dict(type='Digits', split=split) for split in ('train', 'test')}, 'top1'
    if name.endswith('.npz'):
        train, metric = dict(type='NpzPack', path=name, split='train', mode=mode), 'top1'
    elif name in TRANSFER_SETS:
        one = TRANSFER_SETS[name]
        train, metric = dict(type=one.source, root=str(Path(root) / name), split=one.train), one.metric
        train |= dict(mode=mode) if not name.startswith('cifar') else {}
    else:
        raise ValueError(
            f"--sets {name}: expected 'config', 'digits', a pack *.npz, or one of {', '.join(TRANSFER_SETS)}."
        )
    side = size or ((this.cfg.get('evaluation') or {}).get('transform') or {}).get('crop')
    if side is None:
        raise ValueError(
            'The evaluation transform of the config names no size; give --size, that of its images in training.'
        )
    view = dict(type='CenterView', resize=side, crop=side, interpolation='bicubic')
    return dict(train=train, test=dict(train, split='test'), transform=view), metric


def one_score(shared: Labelled, metric: str, penalties: list[float], sources: list, *data: Tensor) -> dict:
    """The score of one encoder on one set; ``targets`` of a source with several classes per image replace its labels."""
    train_x, train_y, test_x, test_y = data
    if metric == 'map11':
        train_y, test_y = map(labels_of, sources)
    validation = getattr(sources[0], 'validation', None)
    common = dict(metric=metric, validation=validation, penalties=penalties, seed=shared.seed, device=shared.device)
    with progress_bar() as bar:
        task = bar.add_task('logistic regressions')
        common['progress'] = lambda done, total: bar.update(task, completed=done, total=total)
        return evaluation.transfer(train_x, train_y, test_x, test_y, **common)
