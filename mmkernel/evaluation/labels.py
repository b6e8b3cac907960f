"""Labels with the names of their classes, and the matching of training and test labels by these names."""

import unicodedata
import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmkernel.datasets.label_checks import targets_of

_KEPT = (Tensor.__getitem__, Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.clone)
SHOWN = 20  # names of a long list that a message quotes


class Labels(Tensor):
    """(N,) class numbers, or (N, C) targets, and ``classes``: the name of each number, or of each column.

    Numbers of two sources mean the same only if the names do. Rows and copies keep the names; other results and pickles are
    plain tensors. ``classes`` is empty where the source has no names. ValueError where a number has no name.
    """

    classes: tuple[str, ...]

    def __new__(cls, y: ArrayLike | Tensor, classes: Sequence[Any] | None = ()) -> 'Labels':
        plain = torch.as_tensor(y)
        names = _names(classes)
        numbers = plain.shape[1] if plain.ndim == 2 else int(plain.max()) + 1 if plain.numel() else 0
        if names and numbers > len(names):
            text = f'the source has {len(names)} class names ({_quoted(names)}) for {numbers} classes'
            raise ValueError(f'{text}: give it one name for each class, or none at all (`classes`).')
        labels = plain.as_subclass(cls)
        labels.classes = names
        return labels

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
        if func in _KEPT and isinstance(args[0], cls) and isinstance(found, Tensor) and found is not args[0]:
            if found.ndim == args[0].ndim and found.shape[1:] == args[0].shape[1:]:
                found = found.as_subclass(cls)
                found.classes = args[0].classes
        return found

    def __reduce_ex__(self, protocol: int) -> tuple:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # a file of torch.save opens with weights_only=True

    def __deepcopy__(self, memo: dict) -> 'Labels':
        return self.clone()


def classes_of(source: Any) -> tuple[str, ...]:
    """The class names of a source; none where it has none."""
    return _names(getattr(source, 'classes', None))


def labels_of(source: Any) -> Labels:
    """``targets`` (N, C) of a source whose images have several classes each, otherwise its ``labels`` (N,)."""
    targets = targets_of(source)
    return Labels(source.labels if targets is None else targets, classes_of(source))


def aligned(train_y: ArrayLike | Tensor, test_y: ArrayLike | Tensor) -> tuple[Any, Any]:
    """Both as plain tensors, those of the test under the numbers of the training; see :func:`renumber`.

    A warning says which classes of the training have no test image. Labels without names stay as they are, with a warning
    where only one of the two has names.
    """
    if not (isinstance(train_y, Labels) and isinstance(test_y, Labels)):
        return _plain(train_y), _plain(test_y)
    known, given = train_y.classes, test_y.classes
    test = renumber(_plain(test_y), given, known)
    shown = set(test.tolist()) if test.ndim == 1 else range(len(known))
    absent, said = [name for k, name in enumerate(known) if k not in shown], None
    if bool(known) != bool(given):
        said = f'only the {"training" if known else "test"} source names its classes ({_quoted(known or given)}): the numbers of '
        said += 'the other may mean other classes. Give both sources `classes`.'
    elif absent and (test >= 0).any():
        said = f'no test image of {len(absent)} of the {len(known)} classes ({_quoted(absent)}): the figures are of the others.'
    if said:
        warnings.warn(said, stacklevel=3)
    return _plain(train_y), test


def renumber(y: Tensor, given: Sequence[str], known: Sequence[str]) -> Tensor:
    """Class numbers (N,) or targets (N, C) of the list ``given`` as those of the list ``known``, by name.

    An absent list of names, or the same one: ``y``. ValueError with both lists where an image has a class that is not
    ``known``, or where a name stands twice in a list.
    """
    given, known = tuple(given), tuple(known)
    if not given or not known or given == known:
        return y
    position = {name: k for k, name in enumerate(known)}
    shown = y[y >= 0].unique() if y.ndim == 1 else (y == 1).any(0).nonzero()[:, 0]
    unknown = [given[k] for k in shown.tolist() if given[k] not in position]
    if unknown or len(position) < len(known) or len(set(given)) < len(given):
        reason = f'{_quoted(unknown)} is not among those of the training' if unknown else 'a name stands twice'
        raise ValueError(
            f'the training and the test source list different classes: {reason}. training ({len(known)}): {_quoted(known)}; '
            f'test ({len(given)}): {_quoted(given)}. Name the classes of both alike, or leave the images of other classes out.'
        )
    number = torch.tensor([position.get(name, -1) for name in given], device=y.device)
    if y.ndim == 1:
        return torch.where(y >= 0, number[y.clamp_min(0)], y)
    targets = y.new_zeros(len(y), len(known))  # 0 for classes that its source does not have
    targets[:, number[number >= 0]] = y[:, number >= 0]
    return targets


def _names(classes: Any) -> tuple[str, ...]:
    """As text in one form of Unicode: file systems write accents in two ways. TypeError for a set or a dictionary."""
    if isinstance(classes, (Mapping, Set)) or not (classes is None or hasattr(classes, '__iter__')):
        raise TypeError(f'classes is a {type(classes).__name__}; expected a list: the names of class 0, 1, 2, ...')
    listed = classes.tolist() if hasattr(classes, 'tolist') else classes or ()
    return tuple(unicodedata.normalize('NFC', str(name)) for name in listed)


def _plain(y: Any) -> Any:
    return y.as_subclass(Tensor) if isinstance(y, Labels) else y


def _quoted(names: Sequence[str]) -> str:
    more = f', ... ({len(names) - SHOWN} more)' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more
