"""Settings that would make a run or its figures nonsense are refused before anything is computed; the error of a loss that is
not finite.
"""

import difflib
import math
from collections.abc import Iterable
from numbers import Real
from typing import Any


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient is NaN or infinite; nothing of this iteration, or of a later one, has reached the weights."""


def check_numbers(
    owner: str = '',
    *,
    none: bool = False,
    whole: bool = False,
    zero: bool = False,
    signed: bool = False,
    several: bool = False,
    least: float = 0.0,
    most: float = math.inf,
    **given: Any,
) -> None:
    """ValueError unless every value of every keyword (a number or several) is finite and positive.

    ``zero``: 0 too. ``signed``: of any sign. ``least``, ``most``: none is smaller, larger. ``whole``: 1, 2, ...
    ``none``: None passes. ``several``: a single number is refused, as what reads the keyword goes through a list.
    ``owner`` begins the message.
    """
    for name, values in given.items():
        if none and values is None:
            continue
        values = values.tolist() if hasattr(values, 'tolist') else values  # of a tensor or an array
        listed = isinstance(values, Iterable) and not isinstance(values, str)
        if several and not listed:
            raise ValueError(f'{owner + "." if owner else ""}{name}={values!r}; expected a list: [{values!r}].')
        values = list(values) if listed else [values]
        bad = [v for v in values if not _right(v, whole, zero or signed, -math.inf if signed else least, most)]
        if bad or not values:
            kind = f'{"whole " if whole else ""}numbers' + (
                '' if signed else f' {">=" if zero or least else ">"} {least:g}'
            )
            limit = f', at most {most if isinstance(most, int) else format(most, "g")}' if most < math.inf else ''
            raise ValueError(
                f'{owner + "." if owner else ""}{name}={", ".join(map(str, bad)) or "nothing"}; expected one or more '
                f'finite {kind}{limit}.'
            )


def _right(value: Any, whole: bool, zero: bool, least: float, most: float) -> bool:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        return False
    return least <= value <= most and (zero or value != 0) and not (whole and value != int(value))


def check_words(owner: str = '', **given: tuple[Any, Iterable]) -> None:
    """ValueError unless each keyword's value, the first of a pair, is one of those allowed, the second."""
    for name, (value, allowed) in given.items():
        allowed = list(allowed)
        if value not in allowed:
            words = ', '.join(map(repr, allowed)) if len(allowed) > 2 else ' or '.join(map(repr, allowed))
            raise ValueError(
                f'{owner + "." if owner else ""}{name} is {"one of " if len(allowed) > 2 else ""}{words}, got {value!r}.'
            )


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


def did_you_mean(word: str, known: Iterable[str], otherwise: str = '', n: int = 1, cutoff: float = 0.5) -> str:
    """The end of an error's text: "Did you mean 'width'?" with up to ``n`` of ``known``, or ``otherwise`` if none is near."""
    names = {str(name).lower(): str(name) for name in known}
    near = [names[name] for name in difflib.get_close_matches(str(word).lower(), names, n=n, cutoff=cutoff)]
    return f'Did you mean {" or ".join(map(repr, near))}?' if near else otherwise


def slips(word: str, known: str) -> float:
    """The number of letters of both words that do not match: 2 for 'modle' and 'model'."""
    return round((1 - difflib.SequenceMatcher(None, word, known).ratio()) * (len(word) + len(known)))


def words_of(error: BaseException) -> str:
    """The message of an error; ``str`` of a KeyError is the repr of its message."""
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error)


def check_views(z: Any) -> None:
    """ValueError unless the tensor ``z`` is (V, B, q): stacked views."""
    if z.ndim != 3:
        raise ValueError(f'Expected views of shape (V, B, q), got {tuple(z.shape)}.')
