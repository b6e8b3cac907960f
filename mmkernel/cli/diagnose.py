"""``mmkernel diagnose CHECKPOINT``: a verdict in the terminal, a page beside the checkpoint."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from rich.markup import escape

from mmkernel import evaluation
from mmkernel.cli.given_data import Images, give_images
from mmkernel.cli.options import ConfigFile, Device, Flag, Json, Options, Out, options_of, usable_device
from mmkernel.cli.terminal import print_json, say
from mmkernel.engine import CheckpointError, ConfigError, load_config, load_weights, read_checkpoint, weights_of
from mmkernel.engine.config import checked
from mmkernel.writing import set_aside, writable
from mmkernel.zoo.config_text import OrderedConfig
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.plain_config import TRUST, ConfigTextError, config_inside
from mmkernel.zoo.shard_files import with_whole_weights

STYLES = dict(healthy='bold white on green', doubtful='bold black on yellow', collapsed='bold white on red')


def diagnose(
    checkpoint: Path,
    /,
    *,
    images: int = 1000,
    data: Images = None,
    size: int | None = None,
    out: Out = None,
    text: Flag = False,
    json: Json = False,
    save_embeddings: Path | None = None,
    embeddings: Path | None = None,
    device: Device = 'auto',
    config: ConfigFile = None,
    cfg_options: Options = None,
) -> None:
    """Is this embedding healthy, doubtful or collapsed? A verdict, and a page in PNG and HTML with its numbers in JSON.

    Args:
        checkpoint: e.g. work_dirs/kernels/digits_rbf/epoch_20.pth; no labels are needed.
        images: look at so many at most.
        data: images to look at: a folder, a pack, shards, parquet; default: the test images of the config.
        size: side of the images; default: that of the checkpoint.
        out: stem of page and numbers; default: <checkpoint>_diagnosis.{png,html,json}.
        text: the verdict only, no files.
        save_embeddings: an NPZ file to keep the embeddings in, to diagnose again elsewhere.
        embeddings: use kept ones; those of other weights are refused.
    """
    path, device = checkpoint, usable_device(device)
    stem = out or path.with_name(f'{path.stem}_diagnosis')
    content = with_whole_weights(read_checkpoint(path), path)
    weights = weights_of(content)
    if not config and config_inside(content, str(path)) is None and not any(key.startswith('neck.') for key in weights):
        raise without_neck(path, weights)  # a config would not help
    cfg = find_config(path, content, config, options_of(cfg_options))
    if data or size is not None:
        give_images(cfg, data, size)
    if not text:
        writable(f'{stem}.json')  # said now, not after the work
    if save_embeddings:
        writable(save_embeddings, 'embeddings.npz')
    model = evaluation.untrained_encoder(cfg)
    if getattr(model, 'neck', None) is not None and not any(key.startswith('neck.') for key in weights):
        raise without_neck(path, weights)
    load_weights(model, weights, source=str(path))
    meta = meta_of(content)
    evaluation.check_trained(model, meta, str(path))
    model.to(device)
    source = evaluation.sample_source(cfg)
    if embeddings:
        cloud = evaluation.load_cloud(embeddings, model, len(source))
    else:
        cloud = evaluation.sample_cloud(model, cfg, images, source)
    about = dict(checkpoint=str(path), config=config or 'of the checkpoint', epoch=meta.get('epoch'),
                 encoder=cloud.encoder[:16], images=source.__class__.__name__)  # fmt: skip
    found = replace(evaluation.diagnose_cloud(cloud, model), about=about)
    say_verdict(found)
    if save_embeddings:
        say(f'written: {evaluation.save_cloud(cloud, save_embeddings)}')
    if json:
        print_json(asdict(found))
    if text:
        return
    write_page(found, cloud, source, path, stem)


def write_page(found: Any, cloud: Any, source: Any, checkpoint: Path, stem: str | Path) -> None:
    """STEM.png, .html and .json; those that are there are set aside."""
    from mmkernel.visualization.diagnosis_page import diagnosis_html, diagnosis_page  # matplotlib: a second to import

    for old in (Path(f'{stem}.{ending}') for ending in ('png', 'html', 'json')):
        if old.exists():
            set_aside(old)
    figure = diagnosis_page(found, cloud, source, str(checkpoint), f'{stem}.png')
    diagnosis_html(found, figure, str(checkpoint), f'{stem}.html')
    evaluation.save_report(f'{stem}.json', asdict(found))
    say(f'written: {stem}.png, .html, .json')


def say_verdict(found: evaluation.Diagnosis) -> None:
    say(f'[{STYLES[found.state]}] {found.state} [/] {escape(found.verdict)}')
    for finding in found.findings:
        say(f'  • {escape(finding)}')


def without_neck(path: Path, weights: Mapping) -> CheckpointError:
    others = sorted({key.split('.')[0] for key in weights} - {'backbone'})
    what = f'no part named neck (its parts: {", ".join(others[:6])})' if others else 'an encoder alone'
    return CheckpointError(
        f"'{path}' holds {what}. The diagnosis looks at embeddings, which the neck makes: expected a checkpoint of the "
        'pretraining, such as epoch_20.pth. mmkernel knn, linear and the other benchmarks take this file.'
    )


def find_config(path: Path, checkpoint: dict, given: str | None, options: dict | None = None) -> Config:
    """The config named, which is run as Python; else that inside the file, of which only values are taken."""
    if given:
        return load_config(given, options)
    places = dict(
        beside=path.with_name('config.py'), above=path.absolute().parents[1] / 'config.py'
    )  # of a log folder: above
    hints = [
        f' There is one {where} it: --config {shlex.quote(str(file))}'
        for where, file in places.items()
        if file.is_file()
    ]
    hint = hints[0] if hints else ''
    try:
        values = config_inside(checkpoint, str(path))
        if values is None:
            raise FileNotFoundError(f"'{path}' holds no config. Name it with --config.{hint}")
        return checked(OrderedConfig(values), options)
    except ConfigTextError as error:
        raise ConfigTextError(f'{error}{hint}') from error
    except ConfigError as error:
        raise ConfigError(f"the config inside '{path}': {error} {TRUST}{hint}") from error
