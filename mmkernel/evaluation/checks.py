"""Settings of a benchmark that would make its figures nonsense are refused before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def check_numbers(whole: bool = False, zero: bool = False, **given: Any) -> None:
    """ValueError unless every value of every keyword (a number or several) is positive; ``zero``: 0 too; ``whole``: 1, 2, ..."""
    for name, values in given.items():
        values = list(values) if isinstance(values, Iterable) else [values]
        bad = [v for v in values if not math.isfinite(v) or v < 0 or (v == 0 and not zero) or (whole and v != int(v))]
        if bad or not values:
            kind = f'{"whole " if whole else ""}numbers {">=" if zero else ">"} 0'
            raise ValueError(f'{name}={", ".join(map(str, bad)) or "nothing"}; expected one or more finite {kind}.')


def check_distinct(**given: Iterable) -> None:
    """ValueError if a keyword's values repeat: a run made twice would make the spread look smaller than it is."""
    for name, values in given.items():
        values = list(values)
        repeated = sorted({v for v in values if values.count(v) > 1})
        if repeated or not values:
            raise ValueError(
                f'{name}={", ".join(map(str, values)) or "nothing"}; expected one or more different ones: a repeated one '
                'adds nothing, and would make the spread look smaller than it is.'
            )
