"""``mmkernel config list | show | diff``: the configs that come with the package, and what a config says when all is resolved."""

import ast
import fnmatch
from pathlib import Path
from typing import Annotated, Any

from mmengine.config import Config
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from mmkernel.checks import did_you_mean
from mmkernel.cli.options import Json, Options, options_of
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.engine import read_checkpoint
from mmkernel.engine.allowed_keys import at
from mmkernel.engine.config import checked, load_config
from mmkernel.engine.config_file import SUFFIXES, bases_of, found, read_config, recipe_named
from mmkernel.engine.resume_check import differing, in_words, resolved
from mmkernel.zoo.catalogue import root
from mmkernel.zoo.config_text import OrderedConfig, config_text
from mmkernel.zoo.plain_config import config_inside, without_machine

Named = Annotated[str, Parameter(metavar='CONFIG')]


def names_of_configs() -> dict[str, Path]:
    """{'<method>/<config>': its file} of the package; 'benchmarks/...' are protocols."""
    folder = root() / 'configs'
    files = sorted(path for path in folder.glob('*/*.py') if not path.parent.name.startswith('_'))
    return {f'{path.parent.name}/{path.stem}': path for path in files}


def file_of(text: str) -> Path | None:
    """The config file that ``text`` means: a path, a name such as '<method>/<config>', the folder of a run; None: a checkpoint."""
    path = found(text)
    if path.is_dir() and (path / 'config.py').is_file():
        return path / 'config.py'
    if path.is_file() and path.suffix == '.pth':
        return None
    if not path.exists() and path.suffix not in SUFFIXES:
        hint = did_you_mean(text, names_of_configs(), 'mmkernel config list shows all names.', n=3)
        raise FileNotFoundError(f"There is no config, run or checkpoint '{text}'. {hint}")
    return path


def config_named(text: str, options: dict[str, Any] | None = None) -> Config:
    """The checked config of what ``file_of`` finds, or inside a checkpoint, of which only values are taken."""
    path = file_of(text)
    if path is not None:
        return load_config(path, options)
    values = config_inside(read_checkpoint(text), text)
    if values is None:
        raise FileNotFoundError(f"'{text}' holds no config.")
    return checked(OrderedConfig(values), options)


def show_list(pattern: str = '*', /, *, json: Json = False) -> None:
    """Configs whose name matches a pattern, with the first line of each.

    Args:
        pattern: a shell pattern in quotes, '*digits*', or a method.
    """
    wanted = (pattern.lower(), f'{pattern.lower()}/*')
    lines = {
        name: (ast.get_docstring(ast.parse(path.read_text(encoding='utf-8'))) or '').partition('\n')[0]
        for name, path in names_of_configs().items()
        if any(fnmatch.fnmatch(name.lower(), each) for each in wanted)
    }
    if not lines:
        raise ValueError(f"no config matches '{pattern}'; 'mmkernel config list' shows all.")
    if json:
        print_json(lines)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column('name', no_wrap=True)
    table.add_column('what it trains')
    for name, line in lines.items():
        table.add_row(name, escape(line))
    console.print(table)
    say(
        f'{len(lines)} configs in {root() / "configs"}. mmkernel train NAME trains one; mmkernel config show NAME shows all of it.'
    )


def show(config: Named, /, *, key: str | None = None, json: Json = False, cfg_options: Options = None) -> None:
    """A config with everything that it inherits, as one text that reads back as the same config.

    Args:
        config: a file, a name of mmkernel config list, a run's folder or a checkpoint.
        key: only the part below it, such as model.head.
    """
    values = config_named(config, options_of(cfg_options)).to_dict()
    if key:
        part = at(values, key)
        if part is None:
            raise KeyError(f"{config} has no '{key}'. At the top it has: {', '.join(values)}.")
        values = {key.rpartition('.')[2]: part}
    if json:
        print_json(resolved(values))
        return
    console.print(Syntax(config_text(values).rstrip(), 'python', background_color='default', word_wrap=True))


def diff(
    config: Named, other: Annotated[str | None, Parameter(metavar='OTHER')] = None, /, *, json: Json = False
) -> None:
    """What differs between two configs once all is resolved; of one config or run, what it says other than its bases.

    Defaults of a class count as said, so that only differences that change a run are listed.

    Args:
        config: a file, a name of mmkernel config list, a run's folder or a checkpoint.
        other: the same; default: what CONFIG inherits, without its own lines.
    """
    if other is None:
        path = file_of(config)
        bases = bases_of(path) if path else []
        if path and (recipe := recipe_named(path)):  # a run keeps a copy without bases, which names its recipe
            bases = [root() / recipe]
        if not bases:
            raise ValueError(
                f"'{config}' has no _base_ to compare it with; name a second config: mmkernel config diff A B."
            )
        old = {key: value for base in bases for key, value in read_config(base).to_dict().items()}
        new, names = config_named(config).to_dict(), (', '.join(base.stem for base in bases), config)
    else:
        old, new, names = config_named(config).to_dict(), config_named(other).to_dict(), (config, other)
    rows = [
        (key, in_words(a), in_words(b))
        for key, a, b in differing('', *(resolved(without_machine(side)) for side in (old, new)))
    ]
    if json:
        print_json([dict(key=key, old=a, new=b) for key, a, b in rows])
        return
    if not rows:
        say('The two mean the same.')
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in ('key', *names):
        table.add_column(escape(title), overflow='fold')
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
