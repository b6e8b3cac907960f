"""What is checked of the text of a metafile, its keys, and whatever in it names a file or an address."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml

from mmkernel.zoo.network_options import ELSEWHERE

FOLLOWED = (
    '_base_',
    '_scope_',
    'custom_hooks',
    'custom_imports',
    'default_scope',
    'import_folders',
    'load_from',
    'resume',
)
LOCAL = ('localhost', '127.0.0.1', '::1')


class MetafileError(ValueError):
    """A metafile that does not follow the format."""


class _Values(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError('an alias (*name): write the value where it is used')
        return super().compose_node(parent, index)


def yaml_of(path: str | Path) -> Any:
    """The values of a YAML file; MetafileError for tags of Python, and for aliases, by which a page of text has no end."""
    try:
        return yaml.load(Path(path).read_text(encoding='utf-8'), _Values)
    except (
        yaml.YAMLError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        said = ' '.join(str(error).split()) or type(error).__name__
        raise MetafileError(f'{path} is not YAML of plain values: {said}') from error


def check_url(url: str, where: str) -> None:
    """MetafileError unless ``url`` is https (plain http on this machine only) or ``package:<path in the package>``."""
    parts = urlsplit(str(url))
    web = parts.scheme == 'https' or (parts.scheme == 'http' and parts.hostname in LOCAL)
    path = PurePosixPath(parts.path)
    inside = parts.scheme == 'package' and '..' not in path.parts and not path.is_absolute()
    fine = (web and parts.hostname) or inside
    check(fine, where, f'expected an https URL (or package:<file in the package>), got {url!r}')


def check(fine: Any, where: str, problem: str) -> None:
    if not fine:
        raise MetafileError(f'{where}: {problem}.')


def check_keys(item: Any, known: set[str], needed: set[str], where: str) -> None:
    check(isinstance(item, Mapping), where, f'expected a mapping, got {type(item).__name__}')
    for problem, names in (('unknown', set(item) - known), ('missing', needed - set(item))):
        words = ', '.join(map(repr, sorted(names)))
        check(not names, where, f'{problem} key {words}. Known: {", ".join(sorted(known))}')


def check_config(config: Any, options: Any, where: str) -> None:
    """A config is Python and is run: one of ours. What a row changes in it names no file and no address."""
    path = PurePosixPath(str(config))
    ours = config is None or (isinstance(config, str) and path.parts[:1] == ('configs',) and '..' not in path.parts)
    ours = ours and (config is None or path.suffix == '.py')
    check(ours, where, f'Config is configs/<method>/<file>.py, got {config!r}')
    check(isinstance(options or {}, Mapping), where, f'Config Options is a mapping, got {type(options).__name__}')
    for key in _keys_in(options):
        wrong = {*ELSEWHERE, *FOLLOWED} & set(key.split('.'))
        check(not wrong, where, f'Config Options has {key!r}; a row has its weights in Files')


def _keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    for key, item in value.items() if isinstance(value, Mapping) else ():
        yield str(key)
        yield from _keys_in(item)
