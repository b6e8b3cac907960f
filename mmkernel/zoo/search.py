"""Where in a published file a model could lie: the keys of nested dicts and a prefix of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from mmkernel.zoo.pins import CheckpointError

# Moving averages of the weights that the file holds too; linear probes of the papers use the others (He et al., CVPR 2020).
# Where there are a student and a teacher, the teacher is published to be used (Caron et al., ICCV 2021).
SECOND_CHOICE = {
    'encoder_k', 'ema', 'model_ema', 'momentum_backbone', 'momentum_encoder', 'student', 'target', 'target_backbone',
    'target_encoder', 'target_net',
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where in a file: the keys of nested dicts, then the prefix of names; ``matched``: names and shapes that fit there."""

    path: tuple[str, ...]
    prefix: str
    matched: int

    @property
    def words(self) -> list[str]:
        return [*self.path, *self.prefix.split('.')]

    def __str__(self) -> str:
        return (
            ' -> '.join([*map(repr, self.path), repr(self.prefix)] if self.prefix else map(repr, self.path))
            or 'the top'
        )


def places(content: Mapping, own: Mapping[str, Tensor]) -> list[Place]:
    """Every place of a file where a tensor of the model could lie, best first."""
    found = []
    for path, state in containers(content):
        fits: Counter[str] = Counter()
        for key, value in state.items():
            words = key.split('.')
            for i in range(len(words)):
                name = '.'.join(words[i:])
                if name in own and own[name].shape == value.shape:
                    fits[key.removesuffix(name)] += 1
        found += [Place(path, prefix, count) for prefix, count in fits.items()]
    return sorted(found, key=lambda place: -place.matched)


def choose(found: list[Place], source: str) -> Place:
    """The place where most fits; of equals the first choice; CheckpointError if there is none."""
    best = [place for place in found if place.matched == found[0].matched]
    first = [place for place in best if not SECOND_CHOICE & set(place.words)] or best
    if len(first) > 1:
        raise CheckpointError(
            f"'{source}' holds the model {len(first)} times: in {', '.join(map(str, first))}. Say which with prefix=."
        )
    return first[0]


def containers(content: Mapping, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """(keys that lead there, tensors) of each dict of tensors, at most three deep. An optimizer's are no weights."""
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if state:
        yield path, state
    for key, value in content.items():
        if isinstance(value, Mapping) and 'optim' not in str(key) and len(path) < 3:
            yield from containers(value, (*path, str(key)))
