"""What the commands that judge an encoder share: their options, the encoders compared, where the answer goes."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mmengine.config import Config
from mmengine.dist import is_main_process
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from torch import nn

from mmkernel.cli.given_data import Data
from mmkernel.cli.named_encoder import NamedEncoder, named_encoder
from mmkernel.cli.options import ConfigFile, Device, Flag, Json, Options, Out, Seed, options_of, usable_device
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.engine import init_processes
from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import evaluate, feature_sets, report, save_report
from mmkernel.writing import NotWrittenError, writable

Several = Parameter(consume_multiple=True)
Whole = Annotated[tuple[int, ...], Several]
Numbers = Annotated[tuple[float, ...], Several]
Words = Annotated[tuple[str, ...], Several]
Arch = Annotated[str | None, Parameter(metavar='NAME', help='a timm model, for a file whose shapes do not tell')]
Named = Annotated[
    str,
    Parameter(
        help='[CONFIG] CHECKPOINT: a file of this or another library, the folder of a run, a name of the zoo, or none'
    ),
]


@dataclass(kw_only=True)
class Reading:
    """Options of what takes features of an encoder."""

    config: ConfigFile = None
    arch: Arch = None
    stage: Annotated[Literal['backbone', 'neck'], Parameter(help='where features are taken')] = 'backbone'
    seed: Seed = 0
    device: Device = 'auto'
    out: Annotated[Out, Parameter(help='the file written; default: beside the checkpoint, named after the command')] = (
        None
    )
    json: Json = False
    cache: Annotated[Path, Parameter(help='folder where features are kept')] = Path('work_dirs/features')
    no_cache: Annotated[Flag, Parameter(help='compute features again')] = False
    cfg_options: Options = None

    @property
    def kept(self) -> Path | None:
        return None if self.no_cache else self.cache


@dataclass(kw_only=True)
class Shared(Reading):
    """Options of every benchmark."""

    no_raw: Annotated[Flag, Parameter(help='no row for raw pixels')] = False


@dataclass(kw_only=True)
class Labelled(Shared, Data):
    """Options of a benchmark that takes images of one class each."""


All = Annotated[Labelled, Parameter(name='*')]
NONE = Labelled()


def opened(named: tuple[str, ...], shared: Reading, images: str = 'labelled', stage: str | None = None) -> NamedEncoder:
    """The encoder that a command line names, with its images (see ``named_encoder``); several processes are joined first."""
    shared.device = usable_device(shared.device)
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        if shared.no_cache:
            raise ValueError('Several processes exchange features through the cache: drop --no-cache.')
        init_processes('pytorch')
        console.quiet = not is_main_process()  # only the first of them speaks
    data = shared if isinstance(shared, Data) else Data()
    options = options_of(shared.cfg_options)
    return named_encoder(named, shared.config, options, data, shared.seed, stage or shared.stage, images, shared.arch)


def one_process(what: str) -> None:
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        raise ValueError(f'{what} runs in one process: start it without torchrun.')


def progress_bar() -> Progress:
    """Nothing where nobody looks on: in a log it would leave blank lines."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def share_extraction(cfg: Config, encoders: dict[str, nn.Module], **options: Any) -> None:
    """Each process puts its share of the features into the cache; then the first goes on alone and the others end."""
    first = is_main_process()
    for _ in feature_sets(cfg, encoders, **options):
        continue
    leave_processes()
    if not first:
        raise SystemExit


def compare(this: NamedEncoder, shared: Shared, score: Callable[..., dict]) -> list[dict]:
    """One row per encoder: raw pixels, untrained, and trained where there is a checkpoint."""
    encoders = this.encoders(shared.stage, shared.seed, shared.device)
    if shared.no_raw and not encoders:
        raise ValueError('--no-raw leaves nothing to judge: name a checkpoint.')
    with progress_bar() as bar:
        tasks = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f'features: {name}', total=total)
            bar.update(tasks[name], completed=done, total=total)

        options = dict(raw=not shared.no_raw, stage=shared.stage, progress=progress, cache=shared.kept)
        if int(os.environ.get('WORLD_SIZE', 1)) > 1:
            share_extraction(this.cfg, encoders, **options)
        return evaluate(this.cfg, encoders, score, **options)


def place_of_result(name: str, this: NamedEncoder, shared: Reading, ending: str = '.json') -> Path:
    """Where the result will be written; OSError now, not after the work, where it cannot be."""
    try:
        return writable(shared.out or this.folder / f'{name}{ending}', f'{name}{ending}')
    except NotWrittenError as error:
        raise error if shared.out else NotWrittenError(f'{error} Name another place: --out FILE.') from error


def publish(
    benchmark: str, this: NamedEncoder, shared: Shared, rows: list[dict], table: Table, **settings: Any
) -> None:
    """Print the table, write the JSON, say where."""
    console.print(table)
    settings |= dict(stage=shared.stage, device=shared.device, cfg_options=options_of(shared.cfg_options) or None)
    if isinstance(shared, Data) and (shared.given or shared.size is not None):
        settings |= dict(data=dict(this.cfg.evaluation))
    content = report(benchmark, rows, this.config or 'of the checkpoint', this.checkpoint, shared.seed, **settings)
    path = save_report(place_of_result(benchmark, this, shared), content)
    say(f'written: {escape(str(path))}')
    if shared.json:
        print_json(content)
