"""Images with equal pixels, within sets and between them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .survey import Survey


def duplicates(surveys: Mapping[str, Survey]) -> dict[str, Any]:
    """Images with equal pixels: ``within`` {set: [[name, ...], ...]} and ``between`` {'a and b': [[names of a], [names of b]]}."""
    read = {name: np.flatnonzero(survey.shapes[:, 2] > 0) for name, survey in surveys.items()}
    digests = np.concatenate([surveys[name].digests[rows] for name, rows in read.items()])
    owners = np.repeat(np.arange(len(read)), [len(rows) for rows in read.values()])
    places = np.concatenate(list(read.values()))
    order = np.lexsort((places, owners, digests[:, 1], digests[:, 0]))
    digests = digests[order]
    first = np.flatnonzero(np.append(True, (digests[1:] != digests[:-1]).any(1))) if len(order) else np.empty(0, int)
    last = np.append(first[1:], len(order))
    names, within, between = list(read), {name: [] for name in read}, {}
    for a, b in zip(first[last - first > 1], last[last - first > 1], strict=True):
        members: dict[str, list[str]] = {}
        for k in order[a:b]:
            owner = surveys[names[owners[k]]]
            members.setdefault(names[owners[k]], []).append(owner.source.name(int(owner.rows[places[k]])))
        for name, group in members.items():
            if len(group) > 1:
                within[name].append(group)
        there = list(members)
        for i, one in enumerate(there):
            for other in there[i + 1 :]:
                between.setdefault(f'{one} and {other}', []).append([members[one], members[other]])
    return dict(within=within, between=between)
