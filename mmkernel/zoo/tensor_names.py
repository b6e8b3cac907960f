"""Find the weights of a model in a published file, whatever their container, prefix and names.

Every prefix in the file is compared with the names and shapes of the model. Other naming schemes are translated by the rules
in configs/_base_/key_maps.yml.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from mmkernel.zoo.catalogue import root
from mmkernel.zoo.metafile import MetafileError
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.stand_ins import left_out, whole_model

WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile
COUNTER = 'num_batches_tracked'
# Parts beside or on top of an encoder. They are left out when only the encoder is loaded.
OTHER_PARTS = {
    'classifier', 'decoder', 'encoder_k', 'fc', 'head', 'heads', 'linear', 'memory', 'neck', 'predictor', 'projection_head',
    'projector', 'prototypes', 'queue', 'queue_ptr',
}  # fmt: skip
# Moving averages, beside the trained weights that the linear probes of the papers use (He et al., CVPR 2020), and students:
# the teacher is published to be used (Caron et al., ICCV 2021).
SECOND_CHOICE = {
    'encoder_k', 'ema', 'model_ema', 'momentum_backbone', 'momentum_encoder', 'student', 'target', 'target_backbone',
    'target_encoder', 'target_net',
}  # fmt: skip


class KeyMapError(RuntimeError):
    """A file whose tensor names do not belong to the given layout."""


@dataclass(frozen=True)
class KeyMap:
    """``inside``: the first of these keys that a file has is opened. ``rules``: (pattern, replacement or None to drop)."""

    name: str
    inside: tuple[str, ...]
    rules: tuple[tuple[str, str | None], ...]

    def apply(self, content: Mapping[str, Any], source: str = 'the file') -> dict[str, Any]:
        """The state dict of a file under our names; KeyMapError for a name that no rule knows, or that two become one."""
        given = next((content[key] for key in self.inside if isinstance(content.get(key), Mapping)), content)
        state, unknown = {}, []
        for key, value in ((str(key), value) for key, value in given.items()):
            rules = ((re.match(pattern, key), replacement) for pattern, replacement in self.rules)
            match, replacement = next(((match, new) for match, new in rules if match), (None, None))
            if match is None:
                unknown.append(key)
            elif replacement is not None:
                name = match.expand(replacement) + key[match.end() :]
                if name in state:
                    raise KeyMapError(f"{source}: the layout '{self.name}' gives two tensors the name '{name}'.")
                state[name] = value
        if unknown or not state:
            more = f', ... ({len(unknown) - 6} more)' if len(unknown) > 6 else ''
            problem = f'no rule for {", ".join(unknown[:6])}{more}' if unknown else 'it holds no tensor of the model'
            raise KeyMapError(f"{source} is not of the layout '{self.name}': {problem} (configs/_base_/key_maps.yml).")
        return state


@cache
def key_maps(folder: Path | None = None) -> dict[str, KeyMap]:
    """All key maps by name of the layout; MetafileError for an invalid entry."""
    path = (folder or root()) / 'configs/_base_/key_maps.yml'
    found = {}
    for name, item in yaml.safe_load(path.read_text(encoding='utf-8')).items():
        try:
            rules = tuple((re.compile(str(pattern)).pattern, replacement) for pattern, replacement in item['Rules'])
            found[name] = KeyMap(name, tuple(map(str, item['Inside'])), rules)
        except (KeyError, TypeError, ValueError, re.error) as error:
            expected = 'Inside: [keys] and Rules: [[pattern, replacement], ...]'
            raise MetafileError(f"{path}: '{name}' needs {expected}: {error!r}.") from error
    return found


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The state dict in a checkpoint (or the checkpoint itself, if it is one), without wrappers' prefixes."""
    state = checkpoint.get('state_dict', checkpoint)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"'state_dict' is a {type(state).__name__}; expected a dict of tensors.")
    state = {str(key): value for key, value in state.items()}
    for prefix in WRAPPERS:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


@dataclass(frozen=True)
class Place:
    """A place in a file: the keys of nested dicts and the prefix of names. ``matched``: how many names and shapes fit."""

    path: tuple[str, ...]
    prefix: str
    matched: int

    def __str__(self) -> str:
        return ' -> '.join(map(repr, (*self.path, self.prefix) if self.prefix else self.path)) or 'the top'


def find_weights(
    model: nn.Module, content: Mapping, source: str, layout: str | None = None, prefix: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """(state dict under the model's names, notes). Only known other parts (OTHER_PARTS) are left out of the state dict."""
    own = model.state_dict()
    content, notes = _renamed(content, own, source, layout)
    found = [place for place in _places(content, own) if prefix is None or place.prefix == prefix]
    if not found:
        if whole := whole_model(content):
            raise CheckpointError(f"'{source}' holds {whole.said()}")
        what = f"below the prefix '{prefix}'" if prefix is not None else 'under any prefix'
        names = ', '.join([key for _, state in _containers(content) for key in state][:4]) or 'no tensors'
        clash = next((key for _, state in _containers(content) for key in state if key in own), None)
        ours = f'{clash} in another shape, {tuple(own[clash].shape)}' if clash else ', '.join(list(own)[:2])
        raise CheckpointError(f"'{source}' holds no tensor of the model {what}. It has {names}, the model has {ours}.")
    most = [place for place in found if place.matched == found[0].matched]
    first = [place for place in most if not SECOND_CHOICE & {*place.path, *place.prefix.split('.')}] or most
    if len(first) > 1:
        raise CheckpointError(
            f"'{source}' holds the model {len(first)} times: in {', '.join(map(str, first))}. Choose one with prefix=."
        )
    best = first[0]
    inside = dict(_containers(content))[best.path]
    state = {key[len(best.prefix) :]: value for key, value in inside.items() if key.startswith(best.prefix)}
    beside = Counter(key.split('.')[0] for key in inside if not key.startswith(best.prefix))
    for key in [key for key in state if key not in own and key.split('.')[0] in OTHER_PARTS]:
        beside[key.split('.')[0]] += 1
        del state[key]
    if best.path or best.prefix:
        notes.append(f'found in {best}')
    if len(most) > 1:
        notes.append(f'not used: {", ".join(str(place) for place in most if place != best)}')
    if beside:
        notes.append(f'left aside: {", ".join(f"{word} ({count})" for word, count in beside.items())}')
    return _with_counters(own, state, notes), [*notes, *left_out(content)]


def _renamed(content: Mapping, own: Mapping[str, Tensor], source: str, layout: str | None) -> tuple[Mapping, list[str]]:
    """The content renamed by the given layout, or by the first layout under which more of the model is found than without."""
    if layout is not None:
        if layout not in key_maps():
            raise KeyMapError(f"there is no layout '{layout}'; expected one of {', '.join(key_maps())}.")
        return key_maps()[layout].apply(content, source), [f"names of the layout '{layout}'"]
    most = max((place.matched for place in _places(content, own)), default=0)
    for name, key_map in key_maps().items() if most < 0.9 * len(own) else ():
        try:
            state = key_map.apply(content, source)
        except KeyMapError:
            continue
        if max((place.matched for place in _places(state, own)), default=0) > most:
            return state, [f"names of the layout '{name}'"]
    return content, []


def _places(content: Mapping, own: Mapping[str, Tensor]) -> list[Place]:
    """Every place in a file that contains tensors of the model, best first."""
    found = []
    for path, state in _containers(content):
        fits: Counter[str] = Counter()
        for key, value in state.items():
            words = key.split('.')
            for i in range(len(words)):
                name = '.'.join(words[i:])
                if name in own and own[name].shape == value.shape:
                    fits[key.removesuffix(name)] += 1
        found += [Place(path, prefix, count) for prefix, count in fits.items()]
    return sorted(found, key=lambda place: -place.matched)


def _containers(content: Mapping, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """(path of keys, tensors) of each dict of tensors, at most five levels deep. State of optimizers is skipped."""
    state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if state:
        yield path, state
    for key, value in content.items():
        if isinstance(value, Mapping) and 'optim' not in str(key) and len(path) < 5:
            yield from _containers(value, (*path, str(key)))


def _with_counters(own: Mapping[str, Tensor], state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Missing batch counters are set to 1: some frameworks do not save them, and only momentum=None uses them."""
    lacking = [key for key in own if key.endswith(COUNTER) and key not in state]
    has_statistics = [key for key in lacking if key.replace(COUNTER, 'running_var') in state]
    if lacking and len(has_statistics) == len(lacking) and not any(key.endswith(COUNTER) for key in state):
        notes.append(f'{len(lacking)} counters of batches are not in the file and were set to 1')
        return {**state, **{key: torch.ones_like(own[key]) for key in lacking}}
    return state
