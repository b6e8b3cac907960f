"""``mmkernel train --data FOLDER``: a short config for images of one's own is written, kept beside its run, and trained from."""

import atexit
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from mmengine.dist import is_main_process
from rich.markup import escape

from mmkernel import evaluation
from mmkernel.checks import check_numbers
from mmkernel.cli.diagnose import say_verdict
from mmkernel.cli.recipe_choice import batches, look, network_of
from mmkernel.cli.recipe_text import Choice, recipe_file, recipe_text
from mmkernel.cli.terminal import Parameter, say
from mmkernel.engine import ConfigError, load_config
from mmkernel.engine.config_file import read_config
from mmkernel.engine.hooks import unwrap
from mmkernel.evaluation.features import usable_cores
from mmkernel.planning.dry_run import make_plan
from mmkernel.writing import replacing
from mmkernel.zoo.catalogue import root

FILE, FEW_STEPS = 'recipe.py', 500


@dataclass(kw_only=True)
class OwnImages:
    """Options of a run on images of one's own."""

    data: Annotated[str | None, Parameter(help='in place of a config: a folder of images, a pack, shards, parquet')] = (
        None
    )
    recipe: Annotated[str | None, Parameter(help='METHOD, or METHOD/CONFIG of mmkernel config list')] = None
    backbone: Annotated[str | None, Parameter(help='a network of timm; default: resnet18')] = None
    size: Annotated[int | None, Parameter(help='side of the views in pixels; default: 64')] = None
    epochs: Annotated[int | None, Parameter(help='default: 100')] = None
    batch_size: Annotated[int | None, Parameter(help='of one process; default: by the number of images')] = None

    def given(self) -> dict[str, Any]:
        return {field.name: v for field in fields(self) if (v := getattr(self, field.name)) is not None}

    def check(self, config: str | None) -> None:
        """ValueError unless either a config or images are named."""
        if self.data is None and (others := [f'--{name.replace("_", "-")}' for name in self.given()]):
            raise ConfigError(
                f'{", ".join(others)} belong(s) to --data FOLDER. A config has it inside: --cfg-options train_cfg.max_epochs=... '
                'train_dataloader.batch_size=...'
            )
        if (self.data is None) == (config is None):
            raise ConfigError(
                'train takes a config, mmkernel train CONFIG, or images of your own, mmkernel train --data FOLDER. '
                + ('A config says where its images are: train_dataloader.dataset.source.' if config else '')
            )


class Asked(NamedTuple):
    """What the command line says; ``work_dir`` None: work_dirs/<images>_<method>_<backbone>_<size>."""

    data: str
    recipe: str | None = None
    backbone: str = 'resnet18'
    size: int = 64
    epochs: int = 100
    batch_size: int | None = None
    seed: int | None = None
    precision: str | None = None
    work_dir: str | None = None


def command(given: dict[str, Any], options: Sequence[str] = ()) -> str:
    words = [word for name, value in given.items() for word in (f'--{name.replace("_", "-")}', str(value))]
    return shlex.join(['mmkernel', 'train', *words, *(['--cfg-options', *options] if options else [])])


class Written(NamedTuple):
    """A config that a command has written, and what it made for it."""

    path: str
    folder: str  # of the run
    made: list[Path] = []  # folders

    def forget(self) -> None:
        """After a start that was refused nothing is left of it."""
        if {path.name for path in Path(self.folder).glob('*')} <= {FILE, '.run.lock'} and self.made:
            shutil.rmtree(self.folder)
            for folder in self.made[1:]:
                with suppress(OSError):  # something else is in it by now
                    folder.rmdir()


def write_recipe(asked: Asked, line: str, launched: bool, keep: bool = True) -> Written:
    """Write the config, after it has been tried on the meta device. ``line``: the command.

    ``launched``: this is one of several processes, the first of which writes. ``keep=False``: to a temporary folder.
    """
    numbers = {'--size': asked.size, '--epochs': asked.epochs, '--batch-size': asked.batch_size}
    check_numbers(whole=True, none=True, **numbers)
    processes = int(os.environ.get('WORLD_SIZE') or os.environ.get('SLURM_NTASKS', 1)) if launched else 1
    first = not launched or (os.environ.get('RANK') or os.environ.get('SLURM_PROCID', '0')) == '0'
    file = recipe_file(asked.recipe, asked.size)
    text, batch, images, labelled = _that_trains(file, asked, line, processes)
    place = 'images' if asked.data.startswith(('dict(', '{')) else Path(asked.data).expanduser().resolve().stem
    name = re.sub(r'[^\w.-]+', '_', f'{place}_{file.partition("/")[0]}_{asked.backbone}_{asked.size}')
    folder = Path(asked.work_dir or Path('work_dirs') / name)
    made = [path for path in (folder, *folder.parents) if first and keep and not path.exists()]
    if first and keep:
        path = _kept(folder, text)
    else:
        path = Path(tempfile.mkdtemp(), FILE)
        path.write_text(text)
        atexit.register(shutil.rmtree, path.parent, ignore_errors=True)
    if first:
        of_labels = 'whose labels only the kNN monitor reads' if labelled else 'without labels'
        say(f'{images:,} images {of_labels}; batches of {batch}, {asked.epochs} epochs by configs/{escape(file)}.')
        say(f'The config is {escape(str(path))}.' if keep else escape(text))
    return Written(str(path), str(folder), made)


def _that_trains(file: str, asked: Asked, line: str, processes: int) -> tuple[str, int, int, bool]:
    """(text, batch, images, whether they have labels) of the first batch that training would not refuse; its ConfigError."""
    base = read_config(root() / 'configs' / file)
    source, parts, images, sides, grey = look(asked.data)
    network, unit = network_of(asked.backbone, asked.size, grey, base.model.backbone)
    workers = min(usable_cores(), 8)
    precision = asked.precision or ('bfloat16' if torch.cuda.is_available() else 'float32')
    errors: list[ConfigError] = []
    for batch in batches(images, asked.batch_size, processes):
        choice = Choice(images, source, parts, grey, max(sides) <= 1.15 * asked.size, asked.size, network, unit, batch, processes,
                        asked.epochs, workers, precision, asked.seed)  # fmt: skip
        text = recipe_text(file, base, choice, asked.data, line)
        try:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, FILE).write_text(text)
                make_plan(load_config(Path(folder, FILE)), processes)
            return text, batch, images, 'train' in parts
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _kept(folder: Path, text: str) -> Path:
    """Write ``folder/recipe.py``. ConfigError, with what to do instead, if the folder holds a run or another recipe."""
    path, shown = folder / FILE, shlex.quote(str(folder))
    again = f'mmkernel train {shown}/{FILE} --out FOLDER trains from it once more; --out FOLDER takes another folder here, too.'
    same = path.exists() and path.read_text() == text
    if same and int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)):
        return path
    if any(folder.glob('epoch_*.pth')) or (folder / 'config.py').exists():
        raise ConfigError(f"'{folder}' holds a run. mmkernel resume {shown} goes on with it; {again}")
    if path.exists() and not same:
        raise ConfigError(f"'{path}' is there, and says something else than this command. {again}")
    with replacing(path) as new:
        new.write_text(text)
    return path


def say_diagnosis(runner: Any, path: str) -> None:
    """At the end of a run: how its embeddings are spread, in words. No label is read."""
    model = unwrap(runner.model)
    if not is_main_process() or not hasattr(model, 'extract') or getattr(model, 'neck', None) is None:
        return
    source = runner.train_dataloader.dataset
    cloud = evaluation.sample_cloud(model, runner.cfg, 500, getattr(source, '_dataset', source).source)
    if runner.iter < FEW_STEPS:
        folder, epochs = shlex.quote(os.path.relpath(runner.work_dir)), 10 * runner.max_epochs
        longer = f'mmkernel resume {folder} --cfg-options train_cfg.max_epochs={epochs}'
        say(
            f'The diagnosis is that of {runner.iter} steps; most runs need thousands. To train longer: {escape(longer)}'
        )
    say_verdict(evaluation.diagnose_cloud(cloud, model))
    say(f'To train once more, with changes: edit a copy of {escape(path)}, then mmkernel train COPY.py')
