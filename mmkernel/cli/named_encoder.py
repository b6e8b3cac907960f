"""The encoder that a command line names: of a run, of the zoo, or a file of another library; and what it is compared with."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.markup import escape
from torch import nn

from mmkernel.checks import did_you_mean
from mmkernel.cli.diagnose import find_config
from mmkernel.cli.given_data import Data, give_data, view_of
from mmkernel.cli.terminal import say
from mmkernel.engine import (
    default_work_dir,
    latest_checkpoint,
    load_checkpoint,
    load_config,
    read_checkpoint,
    weights_of,
)
from mmkernel.engine.checkpoint import epoch_files
from mmkernel.engine.config import checked
from mmkernel.engine.config_file import SUFFIXES
from mmkernel.evaluation import untrained_encoder
from mmkernel.zoo import (
    CheckpointError,
    Encoder,
    LoadReport,
    get_model,
    list_models,
    load,
    load_file,
    model_info,
)
from mmkernel.zoo.catalogue import PACKAGE, config_of
from mmkernel.zoo.plain_config import config_inside
from mmkernel.zoo.shard_files import with_whole_weights


@dataclass
class NamedEncoder:
    """An encoder, the config that builds it, and the images it is judged on: ``evaluation`` of the config."""

    cfg: Config
    config: str | None  # the file of the config; None: it comes from the checkpoint
    checkpoint: str | None
    trained: nn.Module | None = None  # where it was loaded to know what it is

    @property
    def folder(self) -> Path:
        """Where results go: beside the checkpoint, or the work folder of the config."""
        path = Path(self.checkpoint or '')
        if self.checkpoint and path.exists() and not path.resolve().is_relative_to(PACKAGE):
            return path.parent
        if self.cfg.filename or self.cfg.get('work_dir'):
            return Path(self.cfg.get('work_dir') or default_work_dir(self.cfg))
        return Path('work_dirs', path.name.split('.')[0] or 'raw_pixels')

    @property
    def whole(self) -> bool:
        """Whether the config builds a model, of which the encoder is a part; else it is of the encoder alone."""
        return 'type' in self.cfg.model

    def untrained(self, seed: int) -> nn.Module:
        if self.whole:
            return untrained_encoder(self.cfg, seed)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return Encoder.from_config(self.cfg)

    def encoders(self, stage: str, seed: int, device: str) -> dict[str, nn.Module]:
        """{row of the table: model}: untrained, and trained where there is a checkpoint; {} where no encoder is named."""
        if not self.cfg.model.backbone:
            return {}
        if stage != 'backbone' and not self.whole:
            raise CheckpointError(
                f"'{self.checkpoint}' is an encoder alone: it has no {stage}, whose embeddings are asked for. Take backbone "
                'features, or name a checkpoint of the pretraining, such as epoch_20.pth.'
            )
        found = {'untrained encoder': self.untrained(seed)}
        if self.checkpoint:
            trained, said = self.trained, getattr(self.trained, 'report', None)
            if trained is None:
                said = load_trained(trained := self.untrained(seed), self.checkpoint, stage)
            found['trained encoder'] = trained
            if said is not None:  # a model of the zoo has been reported by its name
                say(f'{self.checkpoint}: {escape(str(said))}')
        return {name: model.to(device) for name, model in found.items()}


def named_encoder(
    named: tuple[str, ...], config: str | None, options: Mapping[str, Any], data: Data, seed: int, stage: str = 'backbone',
    images: str = 'labelled', arch: str | None = None,
) -> NamedEncoder:  # fmt: skip
    """What ``[CONFIG] CHECKPOINT`` names, with the images that ``data`` names, else those of the config.

    ``images``: 'labelled', 'any', or 'own' of a command that brings its own. ``arch``: a timm model, of a file without a config.
    """
    config, checkpoint = names_of(named, config)
    if checkpoint and epoch_files(checkpoint):  # the folder of a run
        checkpoint = str(latest_checkpoint(checkpoint) or checkpoint)
    if config:
        this = NamedEncoder(load_config(config, options), config, checkpoint)
        if checkpoint and not Path(checkpoint).exists():
            this.trained = _of_the_zoo(checkpoint, options, stage).trained
    elif checkpoint and Path(checkpoint).exists():
        this = _of_a_file(Path(checkpoint), options, arch)
    elif checkpoint:
        this = _of_the_zoo(checkpoint, options, stage)
    elif data.given:
        this = NamedEncoder(Config(dict(model=dict(backbone={}))), None, None)
    else:
        more = '' if images == 'own' else '; or --data, for raw pixels'
        raise ValueError(f"'none' has no config inside: name one, CONFIG none, for its untrained encoder{more}.")
    if data.given:
        give_data(this.cfg, data, seed, images == 'labelled')
    elif images != 'own' and not {'train', 'test'} <= set(this.cfg.get('evaluation') or {}):
        part = "the config has no 'evaluation' part; expected evaluation=dict(train=<source>, test=<source>)"
        raise KeyError(
            f'{config or checkpoint}: {part if this.whole else "the file tells no images to be judged on"}. Name images: '
            '--train FOLDER --test FOLDER, or --data FOLDER, with a folder for each class.'
        )
    elif data.size is not None:
        this.cfg.evaluation.transform = view_of(this.cfg, data.size)
    return this


def names_of(named: tuple[str, ...], config: str | None) -> tuple[str | None, str | None]:
    """(config, checkpoint) of ``[CONFIG] CHECKPOINT``: a first name that ends as a config is one. 'none' is no checkpoint."""
    names = list(named)
    if config is None and names and names[0].endswith(SUFFIXES):
        config = names.pop(0)
    if len(names) > 1 or not (names or config):
        given = ' '.join(named) or 'nothing'
        raise ValueError(f'expected [CONFIG] CHECKPOINT, a config ending in {SUFFIXES[0]}; got {given}.')
    return config, names[0] if names and names[0].lower() != 'none' else None


def _of_a_file(path: Path, options: Mapping[str, Any], arch: str | None) -> NamedEncoder:
    """The config inside a file is data, never run; a file without one, or a folder of the hub, is read as an encoder alone."""
    if path.is_file() and arch is None:
        content = with_whole_weights(read_checkpoint(path), path)
        if config_inside(content, str(path)) is not None:
            return NamedEncoder(find_config(path, content, None, dict(options)), None, str(path))
    if options:
        raise ValueError(
            f"--cfg-options {next(iter(options))}: '{path}' has no config to change. Name one: --config CONFIG."
        )
    encoder = load(path, arch=arch)
    return NamedEncoder(config_of_encoder(encoder), None, str(path), encoder)


def config_of_encoder(encoder: Encoder) -> Config:
    """What ``Encoder.from_config`` reads, of an encoder that no config describes."""
    pixels = encoder.pixels
    view = {key: pixels[key] for key in ('resize', 'crop', 'interpolation')}
    view['crop'] = view['crop'] or pixels['size']
    return Config(dict(
        model=dict(backbone=dict(encoder.options)),
        data_preprocessor=dict(type='ViewPreprocessor', mean=pixels['mean'], std=pixels['std']),
        evaluation=dict(transform=dict(type='CenterView', **view)),
    ))  # fmt: skip


def _of_the_zoo(name: str, options: Mapping[str, Any], stage: str) -> NamedEncoder:
    known = list_models()
    if name not in known:
        raise FileNotFoundError(
            f"There is no checkpoint '{name}', and the zoo has no model of that name. "
            f'{did_you_mean(name, [*known, *(path.name for path in Path(name).parent.glob("*.pth"))])}'.rstrip()
        )
    cfg = checked(config_of(model_info(name)), options)
    trained = get_model(name, stage='backbone' if stage == 'backbone' else 'model', cfg_options=options)
    return NamedEncoder(cfg, None, name, trained)


def load_trained(model: nn.Module, path: str, stage: str) -> LoadReport:
    """The weights of a run; where backbone features are enough, also a file of an encoder alone, in any published layout."""
    try:
        return load_checkpoint(model, path)
    except CheckpointError as error:
        if stage == 'backbone':
            return load_file(model.backbone, path)
        if any(key.startswith('neck.') for key in weights_of(read_checkpoint(path))):
            raise
        raise CheckpointError(
            f"'{path}' holds no neck, whose embeddings are asked for: take backbone features, or name a checkpoint of the "
            f'pretraining, such as epoch_20.pth. ({error})'
        ) from error
