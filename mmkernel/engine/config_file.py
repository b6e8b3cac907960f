"""Find and read a config file and those that it inherits from. What is wrong in one is said with its line."""

import ast
import re
import shlex
import traceback
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

from mmengine.config import Config

from mmkernel.checks import did_you_mean, words_of
from mmkernel.engine.allowed_keys import ConfigError
from mmkernel.zoo.catalogue import root
from mmkernel.zoo.config_text import OrderedConfig, ordered

SUFFIXES = ('.py', '.json', '.yaml', '.yml')


def read_config(path: str | Path) -> OrderedConfig:
    """The config in ``path``, not checked yet. FileNotFoundError, or ConfigError with file and line where it is not a config."""
    path = found(path)
    if path.is_dir():
        inside = ', '.join(sorted(p.name for p in path.glob('*.py'))[:8])
        text = f"'{path}' is a folder; expected a config file. It holds: {inside or 'no .py file'}."
        own = '' if inside else f' To train on images in it: mmkernel train --data {shlex.quote(str(path))}.'
        raise FileNotFoundError(f'{text}{own}')
    if not path.is_file():
        beside = did_you_mean(path.name, [p.name for p in path.parent.glob('*.py')], n=3)
        raise FileNotFoundError(f"There is no config '{path}'. {beside or near_recipes(str(path))}".rstrip())
    files = _check_bases(path)
    with mock.patch.object(Config, '_get_cfg_path', staticmethod(_base_and_scope)):
        try:
            return ordered(Config.fromfile(str(path), import_custom_modules=False))
        except Exception as error:  # what a config does is up to its author
            more = '. Give such a key in the config that lists them.' if 'among bases' in str(error) else ''
            raise ConfigError(f'{_place(error, files) or repr(str(path))}: {_words(error)}{more}') from error


def found(path: str | Path, folder: Path = Path()) -> Path:
    """``folder / path``; or, where there is none, 'configs/...', 'mmkernel::...' or '<method>/<name>' of the package."""
    name = str(path).removeprefix('mmkernel::').removeprefix('configs/')
    inside = root() / 'configs' / (name if name.endswith(SUFFIXES) else f'{name}.py')
    named = str(path).startswith(('mmkernel::', 'configs/')) or not name.endswith(SUFFIXES)
    return inside if named and not (folder / path).exists() and inside.is_file() else folder / path


def near_recipes(name: str) -> str:
    """ "Did you mean 'mmkernel::<method>/<name>.py'?" with configs of the package that are called so, or nearly; or ''."""
    files = [file.relative_to(root() / 'configs') for file in sorted(root().glob('configs/*/*.py'))]
    wanted = Path(re.sub(r'^(\w+::?)?(configs/)?', '', name))
    inside = [file for file in files if file.parent == wanted or (file.stem == wanted.stem and len(wanted.parts) == 1)]
    words, known = (inside[0] if inside else wanted).as_posix(), [file.as_posix() for file in inside or files]
    return did_you_mean(words, known, n=3, cutoff=0.3 if inside else 0.7).replace(" '", " 'mmkernel::")


def bases_of(path: Path) -> list[Path]:
    """The files that ``_base_`` of a config names."""
    return [found(base, path.parent) for base in Config._get_base_files(str(path))]


def recipes_of(path: str | Path) -> list[str]:
    """The recipes 'configs/METHOD/NAME.py' of the package that a config is or inherits from, nearest first.

    The copy that a run keeps in its work folder inherits from none and names its own: see ``origin``. ``_base_`` is evaluated.
    """
    files, recipes = [found(path).resolve()], []
    for file in files:  # which grows
        if not file.is_file():
            continue
        inside = file.relative_to(root() / 'configs') if file.is_relative_to(root() / 'configs') else None
        if inside is not None and inside.parts[0] != '_base_':
            recipes.append(f'configs/{inside.as_posix()}')
        named = recipe_named(file)
        bases = [root() / named] if named else bases_of(file)
        files += [base for base in (base.resolve() for base in bases) if base not in files]
    return recipes


def recipe_named(copy: Path) -> str:
    """The recipe in the first line of a copy, of which nothing is run; '' where there is none, or no such recipe."""
    if not copy.is_file():
        return ''
    with copy.open(encoding='utf-8', errors='replace') as lines:
        named = re.match(r'# Recipe: (\S+\.py)$', lines.readline(1000).rstrip())
    file = (root() / named[1]).resolve() if named else None
    return named[1] if file and file.is_file() and file.is_relative_to(root() / 'configs') else ''


def origin(filename: str | None) -> str:
    """The first line of the copy of a config in the work folder: the recipe that it comes from; '' if from none."""
    recipes = recipes_of(filename) if filename else []
    return f'# Recipe: {recipes[0]}\n' if recipes else ''


def _base_and_scope(base: str, config: str, mmengine: Any = Config._get_cfg_path) -> tuple[str, str | None]:
    foreign = '::' in base and not base.startswith('mmkernel::')
    return mmengine(base, config) if foreign else (str(found(base, Path(config).parent)), None)


def _check_bases(path: Path, below: tuple[Path, ...] = ()) -> list[Path]:
    """``path`` and all that it inherits from. ConfigError for a circle, in which mmengine would recurse without end, for text
    that is not a config, and for a ``_base_`` that names no files; FileNotFoundError for a lost one.
    """
    path = path.resolve()
    if path in below:
        raise ConfigError(f'The _base_ files form a circle: {" -> ".join(p.name for p in (*below, path))}.')
    _check_text(path)
    try:
        bases = Config._get_base_files(str(path))
    except Exception as error:  # of json, yaml, or of the code that makes the list
        raise ConfigError(f"'{path}': {_words(error)}") from error
    files = [path]
    for base in bases:
        if not isinstance(base, str):
            raise ConfigError(f"'{path}': _base_ has {base!r}; expected the name of a file, or a list of names.")
        package = base.split('::')[0] if '::' in base else 'mmkernel'
        if package == 'mmkernel':
            if not (file := found(base, path.parent)).is_file():
                named = base if '::' in base else file.resolve()
                text = f"'{path}' has _base_ '{named}', which does not exist; the configs of mmkernel are in {root() / 'configs'}."
                raise FileNotFoundError(f'{text} {near_recipes(base)}'.rstrip())
            files += _check_bases(file, (*below, path))
        elif not package.isidentifier() or find_spec(package) is None:
            text = f"'{path}' has _base_ '{base}' of a package '{package}', which is not installed."
            near = near_recipes(base) if did_you_mean(package, ['mmkernel']) else ''
            raise ConfigError(f'{text} {near}'.rstrip())
    return files


def _check_text(path: Path) -> None:
    """ConfigError for a file that is not text, or Python with an error of syntax."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"'{path}' is not a config: expected a file that ends in {', '.join(SUFFIXES)}.")
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        what = f'byte {error.start} is {error.object[error.start]:#04x}'
        raise ConfigError(f"'{path}' is not text in UTF-8 ({what}): save it as UTF-8, or copy it again.") from error
    except OSError as error:
        raise ConfigError(f"'{path}' cannot be read ({error.strerror}).") from error
    if '\0' in text:
        raise ConfigError(f"'{path}' is not text (byte {text.index(chr(0))} is 0): copy it again.")
    if path.suffix == '.py':
        try:
            ast.parse(text)
        except SyntaxError as error:
            code = f': {error.text.strip()}' if error.text and error.text.strip() else ''
            raise ConfigError(f"'{path}', line {error.lineno}, column {error.offset}: {error.msg}{code}") from error


def _place(error: BaseException, files: list[Path]) -> str:
    """'FILE, line N' of the innermost line of a config on the way to ``error``; '' if there is none."""
    names = {str(file) for file in files}
    lines = [
        frame for frame in traceback.extract_tb(error.__traceback__) if str(Path(frame.filename).resolve()) in names
    ]
    return f"'{lines[-1].filename}', line {lines[-1].lineno}" if lines else ''


def _words(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(words_of(error).split())}'
