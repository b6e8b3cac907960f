"""What the log shows of a run: one line per interval within 120 columns; everything else is among the scalars."""

import logging
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.runner import LogProcessor

from mmkernel.engine.waiting import MUCH, advice

COLUMNS = 120
TIME = '%m-%d %H:%M:%S'
ROOM = COLUMNS - len('01-01 00:00:00 ')  # for the text of a line
# Without '/', and not parts of an objective.
NO_PARTS = ('epoch', 'iter', 'step', 'time', 'data_time', 'waiting', 'images_per_second', 'memory', 'grad_norm', 'eta')


class RunLog(LogProcessor):
    """mmengine's scalars, each quantity under one name, and the line of ``interval_line``; advice where much time is waited.

    ``images_per_second`` (of all processes) and ``waiting`` (percent, see ``Waiting``) stand in place of mmengine's ``time`` and
    ``data_time``, which a GPU's queue blurs, and ``step`` in place of ``iter``. The advice comes beyond 20 %, once, and again when
    the share has doubled. The values of a line are read from the device before the share is taken, so that it covers whole steps.
    """

    told = MUCH / 2

    def get_log_after_iter(self, runner: Any, batch_idx: int, mode: str) -> tuple[dict, str]:
        if folder := getattr(runner, 'folder', None):  # mmengine's Runner has none
            folder.check()  # before a line in a folder that may be another's by now
        tag, line = super().get_log_after_iter(runner, batch_idx, mode)
        if mode != 'train':
            return tag, line
        prefix = 'train/' if self.log_with_hierarchy else ''
        seconds = tag.pop(f'{prefix}time', 0.0)
        for name in (f'{prefix}data_time', 'iter'):
            tag.pop(name, None)
        pace = 1 / seconds if seconds else 0.0
        if (waiting := getattr(runner.train_loop, 'waiting', None)) is not None:  # a loop of the user's own has none
            share, pace = waiting.share(), waiting.pace
            tag['waiting'] = 100 * share
            if share > MUCH and share >= 2 * self.told:
                self.told = share
                runner.logger.warning(advice(runner, share))
        if pace and hasattr(runner, 'rows'):
            tag['images_per_second'] = pace * runner.rows
        values = {name.removeprefix('train/'): value for name, value in tag.items()}
        steps, left = len(runner.train_dataloader), runner.message_hub.runtime_info.get('eta')
        place = (
            f'epoch {values["epoch"]:>{len(str(runner.max_epochs))}}/{runner.max_epochs}' if 'epoch' in values else ''
        )
        return tag, interval_line(f'{place} step {batch_idx + 1:>{len(str(steps))}}/{steps}'.strip(), values, left)


def interval_line(place: str, values: Mapping[str, float], left: float | None = None, room: int = ROOM) -> str:
    """``place``, loss, parts, learning rate, speed, waiting, memory and time ``left`` (seconds), in at most ``room`` columns.

    Where there is too little room, the learning rate goes first, then the parts from the last on ('…' stands for them), then
    memory, waiting and speed.
    """
    parts = {f'part {name}': f'{name} {values[name]:.3g}' for name in part_names(values)}
    pieces = dict(place=place) | _said(values, 'loss', 'loss {:.4g}') | parts | dict(more='')
    pieces |= (
        _said(values, 'lr', 'lr {:.3g}')
        | _said(values, 'images_per_second', '{:,.0f} img/s')
        | _said(values, 'waiting', 'waiting {:.0f} %')
    )
    pieces |= {} if 'memory' not in values else dict(memory=f'{values["memory"] / 1024:.1f} GB')
    pieces |= {} if left is None else dict(left=f'{duration(left)} left')
    for name in ('', 'lr', *reversed(parts), 'memory', 'waiting', 'images_per_second', 'left'):
        pieces.pop(name, None)
        pieces['more'] = '…' if name in parts else pieces['more']
        if len(line := '  '.join(filter(None, pieces.values()))) <= room:
            return line
    return f'{line[: room - 1]}…'


def _said(values: Mapping[str, float], name: str, how: str) -> dict[str, str]:
    return {name: how.format(values[name])} if name in values else {}


def part_names(values: Mapping[str, float]) -> Sequence[str]:
    """The unweighted parts of the objective, and what hooks add under a plain word; the weighted ones where there are no other."""
    plain = [name for name in values if '/' not in name and not name.endswith('lr') and name not in NO_PARTS]
    words = [name for name in plain if not name.startswith('loss')]
    weighted = [name for name in plain if name.startswith('loss_')]
    return words or (weighted if len(weighted) > 1 else [])


def duration(seconds: float) -> str:
    """'4:05', '2:04:05' or '3 d 2 h'."""
    minutes, s = divmod(max(int(seconds), 0), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    return f'{days} d {h} h' if days else f'{h}:{m:02}:{s:02}' if h else f'{m}:{s:02}'


class Lines(logging.Formatter):
    """``01-31 12:00:00 text``: paragraphs of 120 columns, whose words stay whole; what begins with a space stays as it is."""

    def __init__(self, stream: Any = None) -> None:
        super().__init__(datefmt=TIME)
        self.stream = stream  # of a terminal, which gets colours

    def format(self, record: logging.LogRecord) -> str:
        level = '' if record.levelno <= logging.INFO else f'{record.levelname} '
        first, *rest = f'{self.formatTime(record, TIME)} {level}{record.getMessage()}'.split('\n')
        text = '\n'.join([_wrapped(first, '  '), *(_wrapped(line) for line in rest)])
        if level and getattr(self.stream, 'isatty', bool)():
            text = text.replace(level, f'\x1b[33m{level}\x1b[0m', 1)
        return f'{text}\n{self.formatException(record.exc_info)}' if record.exc_info else text


def _wrapped(line: str, indent: str = '') -> str:
    if len(line) <= COLUMNS or line.startswith(' '):
        return line
    return textwrap.fill(line, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


class Stdout:
    """Whatever ``sys.stdout`` is at the moment: a progress bar stands in for it, and prints above itself."""

    write = staticmethod(lambda text: sys.stdout.write(text))
    flush = staticmethod(lambda: sys.stdout.flush())
    isatty = staticmethod(lambda: sys.stdout.isatty())
