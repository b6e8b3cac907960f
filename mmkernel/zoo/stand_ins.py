"""``torch.load(weights_only=True)`` of files with objects beside their tensors: each becomes an empty stand-in.

Nothing is imported and nothing of the file is called, whatever the names in it: a stand-in takes any arguments and forgets them.
"""

import pickle
import re
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

MOST_CLASSES = 500  # in one file; those of a training program have some ten
# Names of Python that stand for values. A file that asks for others (os.system, builtins.eval) wants to run something.
VALUES = set(
    """argparse array collections copyreg dataclasses datetime decimal enum fractions functools itertools logging pathlib random
    re string types.GenericAlias types.MappingProxyType types.NoneType types.SimpleNamespace types.UnionType typing uuid zoneinfo
    builtins.bool builtins.bytes builtins.dict builtins.float builtins.frozenset builtins.getattr builtins.int builtins.list
    builtins.object builtins.range builtins.slice builtins.str builtins.tuple builtins.type""".split()
)  # getattr: of a bound method, as in the log histories of mmengine
WHOLE = (
    'a whole model ({}), whose class is not loaded, because loading one can run code. Where the file comes from, save its tensors '
    'alone: torch.save(model.state_dict(), FILE).'
)

SHARD = 'tensors of the class {}: expected plain ones, which are whole (of a sharded model: its full state dict).'


class StandIn:
    """Stands where a file has an object of a class that is not loaded."""

    whole = False  # whether it was an nn.Module

    def __init__(self, *_: Any, **__: Any) -> None:
        """Whatever the file gives is forgotten."""

    def __setstate__(self, state: Any) -> None:
        self.whole = isinstance(state, Mapping) and {'_modules', '_parameters'} <= {*state}

    def said(self) -> str:
        """'an object of NAME ...' with the likely fix."""
        name = type(self).__qualname__
        if self.whole:
            return WHOLE.format(name)
        return f'an object of {name}; expected a dict of weights: torch.save(model.state_dict(), FILE).'


class _ListStandIn(StandIn, list):
    """Of a class that is filled item by item."""


class _DictStandIn(StandIn):
    """Of a class that is filled key by key, which torch does to its own dicts only."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


def load_plain(path: Path, known: Mapping[str, Any], mmap: bool = False) -> Any:
    """The content of a file of ``torch.save`` on the CPU, with stand-ins for all but tensors, plain values and ``known`` names.

    pickle.UnpicklingError for a name that no class of values has; the errors of ``torch.load`` for damaged files.
    """
    made: dict[str, type] = {}
    for _ in range(MOST_CLASSES):
        allowed = torch.serialization.safe_globals([(value, name) for name, value in {**made, **known}.items()])
        try:
            with allowed, warnings.catch_warnings():  # of what an error will say, if it matters
                warnings.filterwarnings('ignore', '.*(Detected pickle protocol|TorchScript archive)')
                return torch.load(path, map_location='cpu', weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            if not (new := dict(_needed(str(error), path))) or new.items() <= made.items():
                raise
            made |= new
        if len(made) > MOST_CLASSES:
            break
    raise pickle.UnpicklingError(f'Only {MOST_CLASSES} classes are expected in one file')


def why_not_plain(error: BaseException, path: Path) -> str:
    """'(9 bytes) is damaged ...': why ``load_plain`` has raised ``error``, with the likely fix."""
    if (size := path.stat().st_size) == 0:
        return 'is empty: whatever wrote it was stopped, or the disk was full.'
    # of the library's own words the first sentence; an int is a byte of no operation: a file of some other kind
    said = error.args[0] if error.args and isinstance(error.args[0], str) else 'torch.save has not written it'
    if isinstance(error, pickle.UnpicklingError) and (found := re.search(r'GLOBAL (\S+)', said)):
        return (
            f'asks for {found[1]}, which is not a class of plain values. It is not loaded, because loading one can run code: save '
            'the state dict alone.'
        )
    if found := re.search(r'must be imported to load (DTensor)s', said):
        return f'holds {SHARD.format(found[1])}'
    if 'Tensor subclass' in said:
        return 'holds tensors of a class of their own, which is not loaded: save plain ones, tensor.as_subclass(torch.Tensor).'
    if 'TorchScript' in said:
        return 'is a program of TorchScript, which is not run; its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW).'
    if isinstance(error, pickle.UnpicklingError):
        if (protocol := _protocol(path)) > 3:
            return (
                f'is written in protocol {protocol} of pickle. Only 2 and 3 are read as plain values; loading one can run code. '
                'Save it again with torch.save(content, FILE).'
            )
        if 'persistent_load of storage' in said:
            return f'holds {WHOLE.format("as torch up to 1.5 wrote it")}'
        found = re.search(r'((?:Can only|Trying to|Unsupported|Only) .+?)(?:\n|$)', said)
        said = found[1] if found else 'torch.save has not written it'
    lines = said.splitlines() or [type(error).__name__]
    return f'({size} bytes) is damaged or not a checkpoint: {lines[0].split(". ")[0].removesuffix(".")}.'


def _protocol(path: Path) -> int:
    """Of the pickle in a file; 0 where it does not say."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = next((name for name in archive.namelist() if name.endswith('/data.pkl')), None)
            start = archive.open(name).read(2) if name else b''
    else:
        with open(path, 'rb') as file:
            start = file.read(2)
    return start[1] if len(start) == 2 and start[0] == 0x80 else 0


def _needed(said: str, path: Path) -> Iterator[tuple[str, type]]:
    """(name, stand-in) of all that an error of ``torch.load`` asks for."""
    if found := re.search(r"got <class '<file>\.(\S+)'>", said):
        kind = _DictStandIn if 'SETITEM' in said else _ListStandIn if 'append' in said else None
        yield from [(found[1], _stand_in(found[1], kind))] if kind else []
    elif found := re.search(r'GLOBAL (\S+) was not an allowed', said):
        name = found[1] if '.' in found[1] else f'builtins.{found[1]}'
        names = {
            name,
            *(torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else ()),
        }
        for name in sorted(names):
            if not _is_value(name):
                raise pickle.UnpicklingError(f'GLOBAL {name}')
            yield name, _stand_in(name, _DictStandIn if name.lower().endswith('dict') else StandIn)


def _stand_in(name: str, kind: type) -> type:
    return type(name, (kind,), dict(__module__='<file>', __qualname__=name))


def _is_value(name: str) -> bool:
    """Whether a name can be that of a class of values; of torch: a class, or a part of torch.nn."""
    root, last = name.split('.')[0], name.split('.')[-1]
    if root in sys.stdlib_module_names and root != '__main__':
        return name in VALUES or root in VALUES
    return root != 'torch' or last[:1].isupper() or name.startswith('torch.nn.')


def whole_model(content: Any) -> StandIn | None:
    """The first nn.Module in nested dicts and lists."""
    return next((each for _, each in _stand_ins(content) if each.whole), None)


def left_out(content: Any) -> list[str]:
    """[a sentence that names the objects in nested dicts and lists that were not loaded], [] if there are none."""
    found = [f"{type(each).__qualname__} ('{where}')" for where, each in _stand_ins(content)]
    more = f' and {len(found) - 3} more' if len(found) > 3 else ''
    return [f'objects that are not loaded: {", ".join(found[:3])}{more}'] if found else []


def _stand_ins(value: Any, where: str = '', depth: int = 0) -> Iterator[tuple[str, StandIn]]:
    """(path of keys, stand-in), five levels deep."""
    if isinstance(value, StandIn):
        yield where, value
    elif depth < 5:
        items = (
            value.items()
            if isinstance(value, Mapping)
            else enumerate(value)
            if isinstance(value, (list, tuple))
            else ()
        )
        for key, item in items:
            yield from _stand_ins(item, f'{where}.{key}'.lstrip('.'), depth + 1)
