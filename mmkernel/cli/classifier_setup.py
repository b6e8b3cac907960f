"""What a classifier is trained on, and how: the protocol, the encoder, the images that a command line names."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from mmengine.config import Config, ConfigDict

from mmkernel.checks import did_you_mean
from mmkernel.cli.given_data import Data, check_labelled, divided, mode_of, view_of
from mmkernel.cli.judging import Arch
from mmkernel.cli.named_encoder import NamedEncoder, named_encoder
from mmkernel.cli.options import ConfigFile, Flag, Json, Options, Out, Seed, options_of
from mmkernel.cli.terminal import Parameter, console, say
from mmkernel.datasets.training import as_source
from mmkernel.engine import load_config
from mmkernel.evaluation import with_encoder
from mmkernel.evaluation.classifier_metrics import metrics_of
from mmkernel.evaluation.labels import classes_of
from mmkernel.zoo import download, model_info
from mmkernel.zoo.catalogue import root
from mmkernel.zoo.metafile import STAGES


@dataclass(kw_only=True)
class Training(Data):
    """Options of what trains a classifier."""

    protocol: Annotated[str | None, Parameter(help='how: a config, or its name in configs/benchmarks')] = None
    untrained: Annotated[Flag, Parameter(help='a second row: the same from an untrained encoder')] = False
    config: ConfigFile = None
    arch: Arch = None
    seed: Seed = 0
    out: Annotated[Out, Parameter(help='folder of runs and result; default: work_dirs/benchmarks/...')] = None
    resume: Annotated[Flag, Parameter(help='go on with the runs that lie in --out')] = False
    json: Json = False
    cfg_options: Options = None  # of the protocol


All = Annotated[Training, Parameter(name='*')]
NONE = Training()


def protocol_of(name: str | None, options: dict[str, Any]) -> Config:
    """The config of a file, or of ``configs/benchmarks`` by its name; ValueError with the names."""
    folder = root() / 'configs/benchmarks'
    known = sorted(path.stem for path in folder.glob('*.py'))
    if name is None or not (name in known or name.endswith('.py') or Path(name).is_file()):
        said = (
            f'--protocol {name}: there is no such protocol. {did_you_mean(name, known)}'
            if name
            else 'Which --protocol?'
        )
        raise ValueError(f'{said.rstrip()} A config, or one of {", ".join(known)}.')
    return load_config(folder / f'{name}.py' if name in known else name, options)


def prepared(named: tuple[str, ...], given: Training) -> tuple[Config, NamedEncoder, Path]:
    """The config to train, the encoder that it begins with, and the folder for it."""
    options = options_of(given.cfg_options)
    protocol = protocol_of(given.protocol, options)
    this = named_encoder(named, given.config, {}, Data(), given.seed, images='own', arch=given.arch)
    cfg = with_encoder(protocol, this.cfg)
    if given.given or given.size is not None:
        give_training_data(cfg, this.cfg, given)
    cfg.launcher = 'pytorch' if int(os.environ.get('WORLD_SIZE', 1)) > 1 else 'none'
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': given.seed}
    console.quiet = int(os.environ.get('RANK', 0)) > 0  # only the first process speaks
    return cfg, this, given.out or Path('work_dirs/benchmarks') / Path(given.protocol).stem / name_of(this)


def name_of(this: NamedEncoder) -> str:
    """'sfrik_digits_L3' of configs/sfrik/digits_L3.py, and of a checkpoint in work_dirs/sfrik/digits_L3."""
    if this.config:
        return f'{Path(this.config).resolve().parent.name}_{Path(this.config).stem}'
    path = Path(this.checkpoint)
    if path.exists() and this.trained is None:  # of a run
        return f'{path.resolve().parent.parent.name}_{path.resolve().parent.name}'
    return path.stem


def give_training_data(cfg: Config, pretraining: Config, given: Training) -> None:
    """The images that ``--data``, ``--train`` and ``--test`` name in place of those of the protocol, in the encoder's size."""
    view = view_of(pretraining, given.size)
    for one in cfg.train_dataloader.dataset.views.values():
        if one is not None:
            one.size = view['crop']
    if given.given:
        parts = divided(given, mode_of(pretraining), given.seed)
        if metrics_of(cfg.model).shown[0] == 'top1':
            check_labelled(given, parts)
        built = {name: as_source(part) for name, part in parts.items()}
        cfg.train_dataloader.dataset.source = ConfigDict(parts['train'])
        cfg.evaluation = ConfigDict({**cfg.evaluation, **parts})
        cfg.model.num_classes = len(classes_of(built['train'])) or int(np.max(built['train'].labels)) + 1
        counts = f'{len(built["train"]):,} images to learn from, {len(built["test"]):,} to be judged on'
        say(f'{counts}, {cfg.model.num_classes} classes; {view["crop"]} px')
    cfg.evaluation.transform = ConfigDict(view)


def encoders(this: NamedEncoder, untrained: bool) -> dict[str, str | None]:
    """{row of the table: file of its weights}."""
    path = this.checkpoint
    if path and not Path(path).exists():  # of the zoo, which has fetched it
        info = model_info(path)
        path = str(download(info, next(stage for stage in STAGES if info.file(stage))))
    trained = {'trained encoder': path} if path else {}
    return {**({'untrained encoder': None} if untrained or not trained else {}), **trained}


def own_data(cfg: Config, given: Training) -> dict[str, Any]:
    """What a report says of images that are not those of the protocol."""
    if not (given.given or given.size is not None):
        return {}
    return dict(data={**cfg.evaluation, 'train': cfg.train_dataloader.dataset.source})
