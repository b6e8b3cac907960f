"""The last steps of a run, from which the one that was not finite can be repeated; and the files that hold it."""

import base64
import json
import shlex
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store
from torch.nn import SyncBatchNorm

from mmkernel.distributed import on_first_process, world_size
from mmkernel.engine.checkpoint import STOPPED, to_plain
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.process_state import torch_random_state
from mmkernel.models.sharded import shards_of
from mmkernel.writing import replacing
from mmkernel.zoo.files import CheckpointError, meta_of, read_checkpoint, write_checkpoint

META = dict(log=str, loss=str, device=str, batch_norm=str, scale=float, iteration=int, epoch=int, window=int, seed=int,
            world_size=int, images=int)  # fmt: skip
KEYS = dict(rank=int, iteration=int, epoch=int, seed=int, world_size=int, loss=str, run=str, window=list)  # of a record
LARGEST, BYTES_OF_CUDA = 2**63, 16  # of a number of an image; seed and offset


class Step(NamedTuple):
    """What the host knows at the beginning of an iteration."""

    iteration: int
    epoch: int
    batch: int  # number in the epoch
    sample_index: list[Tensor]  # (B,) of each micro-batch
    random: dict[str, Tensor]
    counters: tuple  # what modules count on the host
    scale: Tensor | None  # of float16's loss, on the device


class LastSteps:
    """The last ``length`` steps of a run. Noting one takes some microseconds of the host and waits for nothing.

    Random state is that of torch's generators; Python's and NumPy's are those of the epoch's beginning in a replay.
    """

    def __init__(self, runner: Any, length: int) -> None:
        self.runner = runner
        self.steps: deque[Step] = deque(maxlen=length)
        parts = unwrap(runner.model).named_modules()
        self.counted = [(name, part, word) for name, part in parts for word in getattr(part, 'counters', ())]

    def note(self, batch: int, data: Any) -> None:
        """Before the step on ``data``, the ``batch``-th of its epoch; a virtual batch is a list."""
        parts = data if isinstance(data, list) else [data]
        found = [x['sample_index'] for x in parts if isinstance(x, Mapping) and x.get('sample_index') is not None]
        counters = tuple(getattr(part, word) for _, part, word in self.counted)
        scale = getattr(self.runner.optim_wrapper, 'scale', None)
        at = self.runner.iter, self.runner.epoch, batch
        self.steps.append(Step(*at, found, torch_random_state(), counters, scale))

    def stop(self, loss: float, iteration: int, alone: bool) -> str:
        """Write the files; returns a sentence. ``alone``: other processes may not come here."""
        runner, window = self.runner, self._window(iteration)
        path = Path(runner.log_dir) / f'{STOPPED}.pth'
        here = next((step for step in window if step.iteration == iteration), None)
        before = next((step for step in self.steps if step.iteration == iteration - 1), None)
        epoch, good = here.epoch if here else runner.epoch, runner.folder.last_good()
        record = dict(
            epoch=epoch, iteration=iteration, rank=runner.rank, loss=str(loss), run=runner.timestamp,
            sample_index=here and (sum(_numbers(here), []) or None),
            sample_index_before=before and (sum(_numbers(before), []) or None),
            seed=runner.seed, world_size=runner.world_size, checkpoint=good and str(good),
            config=str(Path(runner.work_dir) / 'config.py'),
            window=[dict(iteration=step.iteration, sample_index=_numbers(step), random_state=_text(step)) for step in window],
        )  # fmt: skip
        file = record_file(path, runner.rank)
        told = f'the sample indices of the batch are in {file}.'
        try:  # what cannot be written must not hide the error of the loss
            with replacing(file) as temporary:
                temporary.write_text(json.dumps(record) + '\n')
        except OSError as error:
            told = f'the sample indices of the batch could not be written: {error}.'
        more = f'{self._again(path)} repeats it.'
        if not alone:
            more = on_first_process(lambda: self._write(path, loss, iteration, window))
        elif self._first():  # whoever comes first writes the weights, which are the same everywhere
            more = self._write(path, loss, iteration, window)
        return f'Epoch {epoch}; {told} {more} {runner.folder.way_back()}'

    def _window(self, iteration: int) -> list[Step]:
        """The steps of the accumulation window of an iteration, as many as there were."""
        closes = self.runner.optim_wrapper.window  # of the count of an iteration, from 1
        first = next(i for i in range(iteration, -1, -1) if i == 0 or closes(i)[0])
        last = next(
            i for i in range(iteration, iteration + len(self.steps) + 1) if closes(i + 1)[0] or i > self.runner.iter
        )
        return [step for step in self.steps if first <= step.iteration <= last]

    def _first(self) -> bool:
        key = f'mmkernel/{STOPPED}/{self.runner.work_dir}/{self.runner.timestamp}'
        return world_size() == 1 or _get_default_store().add(key, 1) == 1

    def _write(self, path: Path, loss: float, iteration: int, window: list[Step]) -> str:
        """Model and optimizer before the window, whose counters have gone on since; what to do with them, or the error."""
        runner, model = self.runner, unwrap(self.runner.model)
        if not window:
            return 'It cannot be replayed: its batch was not noted.'
        if world_size() > 1 and any(shards_of(model)):
            return 'It cannot be replayed: its weights lie on several processes.'
        start = window[0]
        about = dict(
            kind=STOPPED, epoch=start.epoch, batch=start.batch, iter=start.iteration, iteration=iteration, loss=str(loss),
            log=runner.timestamp, window=runner.optim_wrapper.window(iteration + 1)[1],
            device=next(model.parameters()).device.type, scale=1.0 if start.scale is None else start.scale.item(),
            batch_norm='all' if any(isinstance(part, SyncBatchNorm) for part in model.modules()) else 'process',
        )  # fmt: skip
        try:
            content = to_plain(runner.state(about))
            for (name, _, word), value in zip(self.counted, start.counters, strict=True):
                content['state_dict'][f'{name}.{word}'.lstrip('.')] = torch.tensor(value)
            write_checkpoint(content, path)
        except (OSError, RuntimeError, TypeError) as error:
            return f'It cannot be replayed, as {path} could not be written: {error}'
        return f'{self._again(path)} repeats the step and names the first module with a bad value.'

    def _again(self, path: Path) -> str:
        """The command to paste. What is inside a file imports nothing: modules of the user's own need the config beside it."""
        own = 'custom_imports' in self.runner.cfg
        config = ['--config', str(Path(self.runner.work_dir) / 'config.py')] if own else []
        return f'`{shlex.join(["mmkernel", "replay", str(path), *config])}`'


def record_file(path: Path, rank: int) -> Path:
    """Where process ``rank`` says what its part of the step was, beside the state in ``path``."""
    return path.with_name(f'{path.stem}_rank{rank}.json')


def _numbers(step: Step) -> list[list[int]]:
    return [torch.as_tensor(part).flatten().tolist() for part in step.sample_index]


def _text(step: Step) -> dict[str, str]:
    return {name: base64.b64encode(x.numpy().tobytes()).decode() for name, x in step.random.items()}


def read_stop(path: Path) -> tuple[dict, list[dict]]:
    """(content of ``non_finite.pth``, the records beside it by rank): ``path`` is that file, a record, or their folder.

    CheckpointError for a file of another kind, and for a record that is damaged. Nothing in the files is run.
    """
    path = path / f'{STOPPED}.pth' if path.is_dir() else path
    if path.suffix == '.json':
        path = path.with_name(path.name.partition('_rank')[0] + '.pth')
    content = read_checkpoint(path)
    meta = meta_of(content)
    whole = all(type(meta.get(key)) is kind for key, kind in META.items()) and isinstance(
        content.get('state_dict'), dict
    )
    if meta.get('kind') != STOPPED or not whole:
        raise CheckpointError(
            f"'{path}' holds no step to replay: expected the {STOPPED}.pth that a run leaves in its log folder when a loss is not "
            'finite.'
        )
    found = map(_record, path.parent.glob(f'{path.stem}_rank*.json'))
    records = {r['rank']: r for r in found if (r['run'], r['iteration']) == (meta['log'], meta['iteration'])}
    if not records:
        raise CheckpointError(
            f"Beside '{path}' there is no {record_file(path, 0).name} of iteration {meta['iteration']}, which says what images "
            'the step was on. Copy the files of a log folder together.'
        )
    return content, [records[rank] for rank in sorted(records)]


def _record(file: Path) -> dict:
    try:
        record = json.loads(file.read_text(encoding='utf-8'))
        if wrong := [key for key, kind in KEYS.items() if not isinstance(record[key], kind)]:
            raise TypeError(f'{wrong[0]} is {record[wrong[0]]!r}')
        for step in record['window']:
            for index in (step['iteration'], *(i for part in step['sample_index'] for i in part)):
                if not (isinstance(index, int) and 0 <= index < LARGEST):
                    raise ValueError(f'{index!r} is not a number of an image')
            states = {
                name: torch.frombuffer(bytearray(base64.b64decode(text, validate=True)), dtype=torch.uint8)
                for name, text in step['random_state'].items() if name in ('torch', 'cuda')
            }  # fmt: skip
            torch.Generator().set_state(states['torch'])  # an error here, not in the step
            if 'cuda' in states and len(states['cuda']) != BYTES_OF_CUDA:
                raise ValueError(f'{len(states["cuda"])} bytes of random state')
            step['random_state'] = states
        return record
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:  # a RecursionError is one
        raise CheckpointError(f"'{file}' is damaged or no record of a step: {error!r}.") from error
