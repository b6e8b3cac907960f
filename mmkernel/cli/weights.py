"""``mmkernel export | import | publish``: encoders for other libraries, from other libraries, and for other people."""

from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape

from mmkernel.cli.diagnose import find_config
from mmkernel.cli.options import ConfigFile, Flag, Options, Out, options_of
from mmkernel.cli.terminal import Parameter, say
from mmkernel.engine import load_config
from mmkernel.zoo import Encoder, get_model, list_models, load, read_checkpoint
from mmkernel.zoo.export import TARGETS, export_model
from mmkernel.zoo.files import meta_of
from mmkernel.zoo.metafile import STAGES
from mmkernel.zoo.opening import layouts
from mmkernel.zoo.publish import add_row, publish_checkpoint, row_text

Size = Annotated[
    list[int] | None,
    Parameter(consume_multiple=(1, 2), metavar='PIXELS', help='height and width of images; default: of config or file'),
]
License = Annotated[str | None, Parameter(metavar='TEXT', help="e.g. Apache-2.0; default: 'not stated'")]


def encoder_of(checkpoint: str, config: str | None, options: dict[str, Any], license: str | None) -> Encoder:
    """The encoder of ``checkpoint``, with its preprocessing: a file, or a name of the zoo, which is downloaded."""
    path = Path(checkpoint)
    if not path.exists() and checkpoint in list_models():
        found = get_model(checkpoint)
        found.facts |= {'license': license} if license else {}
        return found
    content = read_checkpoint(path)
    meta = meta_of(content)
    described = 'preprocessing' in meta or 'config' not in meta  # by its header, or by the shapes of its tensors
    cfg = None if described and not config else find_config(path, content, config, options)
    return load(path, cfg, license=license)


def export(
    checkpoint: str,
    /,
    *,
    to: Annotated[str, Parameter(choices=tuple(TARGETS))],
    out: Out = None,
    size: Size = None,
    force: Flag = False,
    license: License = None,
    config: ConfigFile = None,
    cfg_options: Options = None,
) -> None:
    """Write an encoder in the format of another library. Equal features are checked before the file appears.

    Args:
        checkpoint: a file, or a name of the zoo.
        to: the format.
        out: default: <checkpoint>_<target>.<its ending>; hf: a folder.
        force: replace what is there.
    """
    encoder, path = encoder_of(checkpoint, config, options_of(cfg_options), license), Path(checkpoint)
    if size:
        encoder.pixels['size'] = (size[0], size[-1])
    name = f'{path.name.removesuffix(".pth").removesuffix(".safetensors")}_{to}{TARGETS[to].suffix}'
    if encoder.report is not None:  # weights of the zoo have been reported by their name
        say(f'{path}: {escape(str(encoder.report))}')
    found = export_model(encoder, to, out or (path.with_name(name) if path.exists() else name), force)
    say(f'written: {found.path} ({found.verdict})\n{escape(found.how)}')


def import_(
    file: Path,
    /,
    *,
    layout: Annotated[str, Parameter(name='--from', choices=('auto', *layouts()))] = 'auto',
    arch: str | None = None,
    channels: int = 3,
    prefix: str | None = None,
    adapt_input: Flag = False,
    size: Size = None,
    out: Out = None,
    force: Flag = False,
    license: License = None,
    config: ConfigFile = None,
    cfg_options: Options = None,
) -> None:
    """Read weights of another library into a file of this one.

    Args:
        file: a .pth, .tar, .safetensors or .pkl, or a folder of the hub's layout.
        layout: how its tensors are named; auto: found.
        arch: what to build, a timm name such as resnet50; or give a --config.
        channels: of the images, with --arch.
        prefix: where several parts fit, such as 'module.encoder_k.'.
        adapt_input: filters for 3 channels into a model for another number.
        out: default: <file>_imported.safetensors.
        force: replace what is there.
    """
    cfg, name = load_config(config, options_of(cfg_options)) if config else None, file.name.split('.')[0]
    ours = not (cfg or arch or layout == 'hf' or file.is_dir())  # the file describes itself
    facts = {} if ours else dict(name=name, source=f'imported from {file.name}')
    encoder = load(
        file, cfg, arch, layout, channels, prefix, adapt_input, license=license, **facts
    )  # fmt: skip
    say(f'{file}: {escape(str(encoder.report))}')
    if size:
        encoder.pixels['size'] = (size[0], size[-1])
    out = out or file.with_name(f'{name}_imported.safetensors')
    found, pixels = export_model(encoder, 'safetensors', out, force), encoder.pixels
    foreign = 'of the config' if cfg else 'as timm has them for this model, or as the folder says'
    source = 'those of ImageNet' if encoder.report.taken_for else 'as the file says' if ours else foreign
    say(f'written: {found.path} ({found.verdict})')
    say(f'images: {pixels["size"][0]} x {pixels["size"][1]}, mean {pixels["mean"]}, std {pixels["std"]} ({source})')
    say(escape(found.how))


Result = Annotated[
    list[tuple[str, str, str, str]] | None, Parameter(metavar='TASK DATASET METRIC VALUE', name='--result')
]


def publish(
    checkpoint: str,
    /,
    *,
    name: str,
    out: Annotated[Path, Parameter(metavar='FOLDER')] = Path('published'),
    stage: Annotated[str, Parameter(choices=tuple(STAGES))] = 'backbone',
    half: Flag = False,
    results: Result = None,
    trained_on: str | None = None,
    source: str | None = None,
    url: str | None = None,
    metafile: Path | None = None,
    collection: str | None = None,
    license: License = None,
    config: ConfigFile = None,
    cfg_options: Options = None,
) -> None:
    """Make a file for others of a checkpoint: weights only, hash in the name, card.

    Args:
        checkpoint: e.g. work_dirs/digits_L3/epoch_20.pth.
        name: snake case; the name in the zoo.
        out: a folder.
        stage: what to write; model is all that training goes on with.
        half: matrices and filters in float16.
        results: a figure of this checkpoint, e.g. 'Linear probe' digits 'Top 1 Accuracy' 97.1; may be repeated.
        trained_on: the images it was trained on.
        source: where it comes from.
        url: folder where the file will lie: https://..., or package:weights.
        metafile: add the row here; a row of this name gets what it lacks.
        collection: of the metafile, for a new row; default: the first word of the name.
    """
    if metafile and not url:
        raise ValueError('--metafile needs --url: a row of the zoo says where its file lies.')
    encoder = encoder_of(checkpoint, config, options_of(cfg_options), license)
    say(f'{checkpoint}: {escape(str(encoder.report))}')
    epochs = encoder.facts.get('epochs')
    encoder.facts |= {key: value for key, value in dict(source=source, trained_on=trained_on).items() if value}
    measured = 'measured by us' + (f', epoch {epochs}' if epochs else '')
    if results:
        encoder.facts['metrics'] = [
            {'Task': task, 'Dataset': dataset, 'Metrics': {metric: _number(value)}, 'Source': measured}
            for task, dataset, metric, value in results
        ]
    row: dict[str, Any] = {'In Collection': collection or name.split('_')[0]}
    row |= {'Config': config} if config else {}
    row['Metadata'] = {'Training Data': trained_on or 'not stated', 'Epochs': epochs or 'not stated'}
    found = publish_checkpoint(encoder, checkpoint, out, name, stage, half, url, row)
    say(
        f'written: {found.path} ({found.path.stat().st_size / 1e6:.2f} MB, {"half" if half else "full"} precision; read '
        f'back and run: largest difference of features {found.difference:.2g} of the largest), {found.card}'
    )
    if metafile:
        add_row(metafile, found.entry)
        say(f'row of {found.entry["Name"]} added to {metafile}')
    else:
        say(f'row for the metafile:\n{escape(row_text(found.entry))}')


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f'--result TASK DATASET METRIC VALUE: the value is a number, got {value!r}.') from None
