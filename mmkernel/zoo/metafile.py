"""The format of a metafile: OpenMMLab's model-index, with files, key maps, sources and licences added.

``Collections`` (Name, Paper, Code) and ``Models`` (Name, In Collection, Config, Metadata, Results, Weights) are those of
https://github.com/paperswithcode/model-index; ``Files``, ``Config Options``, ``Source``, ``License``, ``Status`` and ``Note``
are ours, and so is ``Other Weights``: published files of architectures that no config here builds.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from mmkernel.zoo.metafile_checks import MetafileError, check, check_config, check_keys, check_url, yaml_of

STAGES = ('backbone', 'model')  # of a pretrained model: its encoder, or all weights that pretraining continues with
FILE_STAGES = (*STAGES, 'classifier', 'other')
COLLECTION = {'Name', 'Paper', 'Code', 'README', 'Metadata'}
MODEL = {
    'Name', 'In Collection', 'Config', 'Config Options', 'Metadata', 'Results', 'Weights', 'Files', 'Source', 'License',
    'Status', 'Note',
}  # fmt: skip
SHORT = {'Linear probe': 'linear', 'Classifier trained online': 'online', 'Fine-tuning': 'fine-tuned'}
SHORT |= {'Weighted kNN': 'kNN', 'Weighted kNN, 1 label per class': 'kNN with 1 label per class'}
"""``Task`` of a result -> the short word for this protocol in tables."""
PROTOCOLS = ('linear', 'fine-tuned', 'online', 'other')  # columns of tables, one protocol each
OURS = (
    'measured by us',
    'run here',
)  # how the source of a result of ours begins; the second in files of earlier versions
RESULT = {'Task', 'Dataset', 'Metrics', 'Source'}
PART = {'Name', 'URLs', 'SHA256', 'MD5', 'Size'}
FILE = PART | {'Stage', 'Parts', 'Unpack', 'KeyMap'}


@dataclass(frozen=True)
class Part:
    """One download: the same bytes under each of ``urls``, tried in order.

    ``sha256``, ``md5``: hexadecimal, the whole or its first 8 digits or more; None: not published.
    """

    name: str
    urls: tuple[str, ...] = ()
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class WeightsFile(Part):
    """A file of weights: one download, or ``parts`` that are joined in order, and unpacked where ``unpack`` says how."""

    stage: str = 'backbone'
    parts: tuple[Part, ...] = ()
    unpack: str | None = None
    key_map: str | None = None


@dataclass(frozen=True)
class ModelInfo:
    """One row of the zoo. ``config`` is None for published files that no config here builds."""

    name: str
    collection: str
    config: str | None
    config_options: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    results: tuple[dict, ...] = ()
    files: tuple[WeightsFile, ...] = ()
    source: str = ''
    license: str = ''
    status: str = ''
    note: str = ''
    paper: dict[str, str] = field(default_factory=dict)

    @property
    def published(self) -> tuple[dict, ...]:
        """Results published by the authors."""
        return tuple(result for result in self.results if result not in self.measured)

    @property
    def measured(self) -> tuple[dict, ...]:
        """Results measured with this package on the files of this row: their source starts with 'measured by us'."""
        return tuple(result for result in self.results if str(result['Source']).startswith(OURS))

    def file(self, stage: str) -> WeightsFile | None:
        """The first file with the weights of this stage, one of ``FILE_STAGES``; None if there is none."""
        return next((file for file in self.files if file.stage == stage), None)


def read_metafile(path: str | Path) -> tuple[list[ModelInfo], list[dict]]:
    """(models, collections) of one metafile; MetafileError with the place of the first thing that is wrong."""
    try:
        return _rows(yaml_of(path), f'{Path(path).parent.name}/{Path(path).name}')
    except MetafileError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise MetafileError(f'{path} has a value of the wrong kind: {error or type(error).__name__}.') from error


def _rows(content: Any, where: str) -> tuple[list[ModelInfo], list[dict]]:
    check_keys(content, {'Collections', 'Models', 'Other Weights'}, {'Collections', 'Models'}, where)
    for i, collection in enumerate(content['Collections']):
        check_keys(collection, COLLECTION, {'Name'}, f'{where}: Collections[{i}]')
    collections = {collection['Name']: collection for collection in content['Collections']}
    models = [
        _model(item, collections, f'{where}: {part}[{i}]', built=part == 'Models')
        for part in ('Models', 'Other Weights') for i, item in enumerate(content.get(part) or [])
    ]  # fmt: skip
    return models, list(collections.values())


def _model(item: Any, collections: Mapping, where: str, built: bool) -> ModelInfo:
    check_keys(item, MODEL, {'Name', 'In Collection'} | ({'Config'} if built else {'Note', 'Files'}), where)
    name, collection = item['Name'], item['In Collection']
    where = f'{where} ({name})'
    fine = re.fullmatch(r'[a-z][A-Za-z0-9_]*', str(name))
    check(fine, where, f"a name is snake case, letters, digits and '_', got {name!r}")
    check_config(item.get('Config'), item.get('Config Options'), where)
    check(collection in collections, where, f'In Collection is one of {", ".join(collections)}, got {collection!r}')
    check(built or 'Config' not in item, where, 'a row with a Config belongs under Models')
    for result in item.get('Results') or []:
        check_keys(result, RESULT, RESULT, f'{where}: Results')  # no figure without its source
    files = tuple(_file(file, f'{where}: Files[{i}]') for i, file in enumerate(item.get('Files') or []))
    said = all(item.get(key) for key in ('Source', 'License', 'Status'))
    check(said or not files, where, "weights have a Source, a License ('not stated' counts) and a Status")
    first = files[0].urls[0] if files and files[0].urls else None
    check(item.get('Weights') == first, where, f'Weights is the first URL of the first of the Files, {first!r}')
    return ModelInfo(
        name, collection, item.get('Config'), dict(item.get('Config Options') or {}), dict(item.get('Metadata') or {}),
        tuple(item.get('Results') or ()), files, paper=dict(collections[collection].get('Paper') or {}),
        **{key.lower(): item.get(key) or '' for key in ('Source', 'License', 'Status', 'Note')},
    )  # fmt: skip


def _file(item: Any, where: str) -> WeightsFile:
    if isinstance(item, Mapping) and 'Stage' not in item:  # earlier metafiles call it Holds
        item = {'Stage' if key == 'Holds' else key: value for key, value in item.items()}
    check_keys(item, FILE, {'Name', 'Stage'}, where)
    check(item['Stage'] in FILE_STAGES, where, f'Stage is one of {", ".join(FILE_STAGES)}, got {item["Stage"]!r}')
    check(item.get('Unpack') in (None, 'tar.gz'), where, f'Unpack is tar.gz or null, got {item.get("Unpack")!r}')
    one = bool(item.get('URLs')) != bool(item.get('Parts'))
    check(one, where, 'a file has either URLs (mirrors of the whole) or Parts (to be joined)')
    parts = tuple(_part(part, f'{where}: Parts[{i}]') for i, part in enumerate(item.get('Parts') or []))
    whole = _part({key: value for key, value in item.items() if key in PART}, where, needed={'Name'})
    return WeightsFile(
        **vars(whole), stage=item['Stage'], parts=parts, unpack=item.get('Unpack'), key_map=item.get('KeyMap')
    )


def _part(item: Any, where: str, needed: Iterable[str] = ('Name', 'URLs')) -> Part:
    check_keys(item, PART, set(needed), where)
    name, urls, size = item['Name'], item.get('URLs') or [], item.get('Size')
    plain = isinstance(name, str) and PurePosixPath(name).name == name and not name.startswith('.')
    check(plain, where, f'Name is that of a file, without folders, got {name!r}')
    for url in urls:
        check_url(url, where)
    for key, length in (('SHA256', 64), ('MD5', 32)):
        value = item.get(key)
        fine = value is None or (isinstance(value, str) and re.fullmatch(rf'[0-9a-f]{{8,{length}}}', value))
        check(fine, where, f'{key} is null or its first 8 to {length} hex digits, in quotes, got {value!r}')
    fine = size is None or (type(size) is int and size > 0)
    check(fine, where, f'Size is a number of bytes or null, got {size!r}')
    return Part(name, tuple(urls), item.get('SHA256'), item.get('MD5'), size)


def by_protocol(results: Iterable[Mapping[str, Any]]) -> dict[str, tuple[Mapping[str, Any], ...]]:
    """{column of a table: the results that belong there}, for all ``PROTOCOLS``."""
    words = [(SHORT.get(result['Task'], 'other'), result) for result in results]
    found = {name: tuple(result for word, result in words if word == name) for name in PROTOCOLS[:-1]}
    return {**found, 'other': tuple(result for word, result in words if word not in found)}
