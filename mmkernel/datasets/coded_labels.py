"""Labels that come as texts: numbers or names of classes."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .list_files import text_of

_NUMBER = re.compile(r'[+-]?\d+(\.\d*)?')


def set_labels(source: Any, codes: np.ndarray, texts: Sequence[str], classes: Sequence[str] | str | None) -> None:
    """``source.labels`` and ``source.classes`` of the label texts[codes[i]] of image i; code -1: none.

    classes: names in the order of their numbers, a text file with one per line, or None. Texts that are all among them are
    names; others that are all numbers are numbers; others are names, without ``classes`` numbered in sorted order. ValueError
    naming the first image with a part of a number, or with a name that is not among ``classes``.
    """
    names = class_names(classes, type(source).__name__)
    source.classes = names
    if not set(texts) <= set(names) and all(_NUMBER.fullmatch(text) for text in texts):
        values = [float(text) if '.' in text else int(text) for text in texts]
    else:
        source.classes = names or sorted(text for text in texts if text.strip())
        place = {name: k for k, name in enumerate(source.classes)}
        if set(texts) - set(place):
            source.labels = np.array([*texts, None], object)[codes]  # refuses them
        values = [place[text] for text in texts]
    source.labels = np.array([*values, -1])[codes]


def class_names(classes: Sequence[str] | str | None, owner: str) -> list[str]:
    """A list of names, or that in a text file."""
    if not isinstance(classes, (str, os.PathLike)):
        return [str(name) for name in classes or ()]
    path = Path(classes).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"{owner}: there is no list of classes '{classes}' (working directory '{Path.cwd()}'). Expected a list of names, or "
            'a text file with one name per line.'
        )
    return [line.strip() for line in text_of(path).splitlines() if line.strip()]
