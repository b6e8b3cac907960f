"""Which files a pattern of shards means."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_RANGE = re.compile(r'(\d+)\.\.(\d+)')
_COMPRESSED = ('.gz', '.tgz', '.bz2', '.tbz2', '.xz', '.txz', '.zst')


def shard_files(shards: str | os.PathLike | Sequence[str], ending: str, owner: str) -> list[str]:
    """The files that ``shards`` means, in its order: a file, a folder (its files with this ``ending``, sorted), a pattern with
    *, ? and [ ], or with {000..146} and {a,b} as in a shell, several of these with '::' between them, or a list of them.

    FileNotFoundError where one is missing, which says how many of how many and names the first five, or where there is none;
    ValueError for an address on the net, or for a file that comes twice.
    """
    given = [os.fspath(shards)] if isinstance(shards, (str, os.PathLike)) else [os.fspath(each) for each in shards]
    files = [file for each in given for part in each.split('::') for file in _files(part, ending, owner)]
    if not files:
        raise FileNotFoundError(f'{owner}: the list of files is empty.')
    if missing := [file for file in files if not os.path.isfile(file)]:
        first = ', '.join(f"'{file}'" for file in missing[:5]) + (', ...' if len(missing) > 5 else '')
        raise FileNotFoundError(
            f"{owner}: {len(missing)} of {len(files)} files are missing: {first} (working directory '{Path.cwd()}'). "
            'Fetch them, or name those that are there.'
        )
    true = [os.path.realpath(file) for file in files]
    if len(set(true)) < len(true):
        twice = next(file for file, place in zip(files, true, strict=True) if true.count(place) > 1)
        raise ValueError(f"{owner}: '{twice}' comes twice, so its images would too: name each file once.")
    return files


def _files(pattern: str, ending: str, owner: str) -> list[str]:
    if '://' in pattern or pattern.startswith('pipe:'):
        raise ValueError(
            f"{owner}: '{pattern}' is not a file of this machine. Images are read in random order, which needs files: copy the "
            'shards to a disk, or mount the bucket as a folder.'
        )
    pattern = os.path.expanduser(pattern)
    if os.path.isdir(pattern):
        return _there(sorted(glob.glob(os.path.join(glob.escape(pattern), f'*{ending}'))), pattern, ending, owner)
    if os.path.isfile(pattern):
        return [pattern]
    files = []
    for name in _braces(pattern):
        files += _there(sorted(glob.glob(name)), name, ending, owner) if glob.has_magic(name) else [name]
    return files


def _there(files: list[str], pattern: str, ending: str, owner: str) -> list[str]:
    """``files``, or FileNotFoundError with what the folder holds instead."""
    if files:
        return files
    folder = pattern if os.path.isdir(pattern) else os.path.dirname(pattern) or '.'
    found = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    said = f'it holds {", ".join(found[:3]) + (", ..." if len(found) > 3 else "") or "nothing"}'
    if any(name.endswith(_COMPRESSED) for name in found):
        said += '. Compressed shards allow no random order: uncompress them once (gunzip *.gz)'
    what = f"no *{ending} in the folder '{folder}'" if folder == pattern else f"no file is named like '{pattern}'"
    where = said if os.path.isdir(folder) else f"there is no folder '{folder}'"
    raise FileNotFoundError(f"{owner}: {what}: {where} (working directory '{Path.cwd()}').")


def _braces(pattern: str) -> Iterator[str]:
    """'s-{08..10}.tar' -> 's-08.tar', 's-09.tar', 's-10.tar'; 'x{a,b}' -> 'xa', 'xb'."""
    found = re.search(r'\{([^{}]*)\}', pattern)
    if found is None:
        yield pattern
        return
    if limits := _RANGE.fullmatch(found[1]):
        first, last = limits.groups()
        width = len(first) if first[0] == '0' else 0
        words = [str(number).zfill(width) for number in range(int(first), int(last) + 1)]
        if not words:
            raise ValueError(f"'{pattern}': the range {found[0]} is empty; write the smaller number first.")
    else:
        words = found[1].split(',')
    for word in words:
        yield from _braces(pattern[: found.start()] + word + pattern[found.end() :])
