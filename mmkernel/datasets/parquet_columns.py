"""What pyarrow reads of a parquet file: its columns, labels and row groups."""

import json
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

_SPLIT = re.compile(r'(train|validation|valid|val|dev|test)(?![a-z])')


class Part(NamedTuple):
    """What one file tells without its images."""

    rows: list[int]  # of each row group
    sizes: list[int]  # bytes of the images of each, as they are in the file
    label: Any  # pyarrow's column, of one type for all whole numbers and one for all texts; or None
    kind: str  # of its labels
    classes: list[str]  # that its metadata tell


def pyarrow() -> Any:
    """The package, which is an optional one; ImportError that says how to install it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet reads with pyarrow, which is not installed: pip install 'mmkernel[parquet]'."
        ) from error
    return pyarrow


def one_split(files: list[str]) -> None:
    """ValueError where the names of files tell several splits: a folder of Hugging Face holds them all."""
    found = Counter(match[1] for file in files if (match := _SPLIT.match(os.path.basename(file))))
    if len(found) > 1:
        folder, first = os.path.dirname(files[0]) or '.', next(iter(found))
        raise ValueError(
            f'Parquet: the files are of several splits ({", ".join(f"{word}: {count}" for word, count in found.items())}). Name '
            f"those of one, e.g. '{folder}/{first}*.parquet'."
        )


def part_of(path: str, image: str, label: str | None) -> Part:
    """ValueError where the file is damaged, or has no such columns: it says which there are."""
    file = opened(path)
    schema = file.schema_arrow
    there = ', '.join(f'{field.name} ({_kind(field.type)})' for field in schema)
    for option, column in (('image', image), ('label', label)):
        if column is not None and schema.get_field_index(column) < 0:
            none = '; label=None for none' if option == 'label' else ''
            raise ValueError(f"'{path}' has no column '{column}', but: {there}. Give {option}=...{none}.")
    if not _holds_images(schema.field(image).type):
        raise ValueError(
            f"'{path}': column '{image}' holds {schema.field(image).type}; expected encoded images, binary or a struct with "
            f'bytes. There is: {there}.'
        )
    groups = [file.metadata.row_group(g) for g in range(file.metadata.num_row_groups)]
    wanted = [c for c in range(file.metadata.num_columns) if file.schema.column(c).path.split('.')[0] == image]
    return Part(
        [group.num_rows for group in groups],
        [sum(group.column(c).total_compressed_size for c in wanted) for group in groups],
        *_labels(path, label),
        [] if label is None else _classes(schema.metadata, label),
    )


def _labels(path: str, label: str | None) -> tuple[Any, str]:
    """The column of labels and the kind of them; whole numbers as int64, numbers and texts without a dictionary."""
    if label is None:
        return None, 'no labels'
    pa, types = pyarrow(), pyarrow().types
    column = _column(path, 'its labels', lambda file: file.read([label], use_threads=False))
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if types.is_integer(kind) or types.is_null(kind):
        return column.cast(pa.int64()), 'whole numbers'
    if types.is_string(kind) or types.is_large_string(kind):
        return column.cast(pa.string()), 'texts'
    return column.cast(kind), str(kind)


def _column(path: str, what: str, read: Callable[[Any], Any]) -> Any:
    """The only column that ``read`` gives of a file; ValueError that names it if it is damaged there."""
    try:
        return read(opened(path)).column(0)
    except (pyarrow().ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"'{path}' is damaged, {what} cannot be read ({' '.join(str(error).split())}). Fetch it again."
        ) from error


def paths_of(path: str, image: str) -> list[str | None]:
    """The ``path`` of each image, None where there is none."""
    file = opened(path)
    if f'{image}.path' not in [file.schema.column(c).path for c in range(file.metadata.num_columns)]:
        return [None] * file.metadata.num_rows
    column = _column(path, 'its paths', lambda file: file.read([f'{image}.path'], use_threads=False))
    return [value and value['path'] for value in column.to_pylist()]


class RowGroups:
    """The images of the row groups read last, in this process: at most ``limit`` bytes, or one group."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.kept: OrderedDict[tuple[str, int], Any] = OrderedDict()

    def images(self, path: str, group: int, column: str) -> Any:
        """pyarrow's binary column of the group."""
        key = path, group
        if key not in self.kept:
            found = _column(
                path, f'row group {group}', lambda file: file.read_row_group(group, [column], use_threads=False)
            )
            if not _is_binary(found.type):
                found = pyarrow().chunked_array([chunk.field('bytes') for chunk in found.chunks])
            self.kept[key] = found
            while len(self.kept) > 1 and sum(each.nbytes for each in self.kept.values()) > self.limit:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        return self.kept[key]


def opened(path: str) -> Any:
    """A file as this process has opened it; ValueError if it is no parquet file, or a damaged one."""
    return _opened(path, os.getpid(), os.stat(path).st_mtime_ns)


@lru_cache(maxsize=64)
def _opened(path: str, process: int, changed: int) -> Any:
    pa = pyarrow()
    try:
        return pa.parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = ' '.join(str(error).split())
        raise ValueError(f"'{path}' is cut short, damaged or no parquet file ({said}). Fetch it again.") from error


def _is_binary(kind: Any) -> bool:
    types = pyarrow().types
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_images(kind: Any) -> bool:
    if pyarrow().types.is_struct(kind):
        return kind.get_field_index('bytes') >= 0 and _is_binary(kind.field('bytes').type)
    return _is_binary(kind)


def _kind(kind: Any) -> str:
    return 'images' if _holds_images(kind) else str(kind)[:40]


def _classes(metadata: dict[bytes, bytes] | None, label: str) -> list[str]:
    """The names of a ClassLabel in the metadata of Hugging Face; [] without them."""
    try:
        features = json.loads((metadata or {}).get(b'huggingface', b'{}')).get('info', {}).get('features', {})
        return [str(name) for name in features.get(label, {}).get('names') or []]
    except (ValueError, AttributeError, TypeError, RecursionError):
        return []  # written by something else: the labels are numbers without names
