"""Find the weights of a model in a file of any code base, whatever their container, prefix and names.

Every prefix in the file is compared with the names and shapes of the model. Other naming schemes are translated first.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmkernel.checks import did_you_mean
from mmkernel.zoo.name_rules import KeyMapError, key_maps, numbered
from mmkernel.zoo.network_shapes import differing
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.resampling import with_positions
from mmkernel.zoo.stand_ins import left_out, whole_model

WRAPPERS = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile
INSIDE = re.compile(r'(^|\.)(?:(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.)+')  # around parts
COUNTER = 'num_batches_tracked'
# Parts beside or on top of an encoder. They are left out when only the encoder is loaded.
OTHER_PARTS = re.compile(
    r"""(online_)?classifier|data_preprocessor|decoder(_\w+)?|encoder_k|fc|heads?|linear|mask(ed)?_(token|embed)|memory|momentum_\w+|neck|pooler
    |(\w+_)?(predictor|projector|head)|projection(_\w+)?|prototypes|queue(_ptr)?""",
    re.VERBOSE,
)
# Moving averages, beside the trained weights that the linear probes of the papers use (He et al., CVPR 2020), and students:
# the teacher is published to be used (Caron et al., ICCV 2021). Words of a name: 'backbone_momentum', 'encoder_k'.
SECOND_CHOICE = {'averaged', 'ema', 'k', 'momentum', 'student', 'swa', 'target'}
Containers = list[tuple[tuple[str, ...], dict[str, Tensor]]]


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
    matched: int = 0

    def __str__(self) -> str:
        return ' -> '.join(map(repr, (*self.path, self.prefix) if self.prefix else self.path)) or 'the top'

    @property
    def whole(self) -> str:
        """All words to it; what chooses it where others have its prefix."""
        return '.'.join([*self.path, self.prefix])

    @property
    def second(self) -> bool:
        return bool(SECOND_CHOICE & {*re.split(r'[._]', self.whole)})


def find_weights(
    model: nn.Module, content: Mapping, source: str, layout: str | None = None, prefix: str | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """(state dict under the model's names, notes). Only known other parts (OTHER_PARTS) are left out of the state dict."""
    own = model.state_dict()
    inside, notes = _renamed(content, own, source, layout)
    places = _places(inside, own)
    found = [place for place in places if prefix is None or prefix in (place.prefix, place.whole)]
    if not found:
        raise CheckpointError(_nothing(content, inside, own, places, prefix, source))
    most = [place for place in found if place.matched == found[0].matched]
    first = [place for place in most if not place.second] or most
    if len(first) > 1 and 2 * first[0].matched > len(own):  # else nothing in the file is this model
        raise CheckpointError(
            f"'{source}' holds the model {len(first)} times: in {', '.join(map(str, first))}. Choose one: "
            f'{" or ".join(f"prefix={chosen_by(each, first)!r}" for each in first)}.'
        )
    best = first[0]
    beside = dict(inside)[best.path]
    state = {key[len(best.prefix) :]: value for key, value in beside.items() if key.startswith(best.prefix)}
    aside = Counter(key.split('.')[0] for key in beside if not key.startswith(best.prefix))
    for key in [key for key in state if key not in own and OTHER_PARTS.fullmatch(key.split('.')[0])]:
        aside[key.split('.')[0]] += 1
        del state[key]
    if best.path or best.prefix:
        notes.append(f'found in {best}')
    if others := [place for place in most if place != best]:
        notes.append(f'not used: {", ".join(f"{each} (prefix={chosen_by(each, most)!r} takes it)" for each in others)}')
    if aside:
        notes.append(f'left aside: {", ".join(f"{word} ({count})" for word, count in aside.items())}')
    state, said = with_positions(own, _with_counters(own, state, notes))
    return state, [*notes, *said, *left_out(content)]


def chosen_by(place: Place, places: list[Place]) -> str:
    """The shortest ``prefix=`` that chooses this one of several places."""
    return place.whole if sum(each.prefix == place.prefix for each in places) > 1 else place.prefix


def _nothing(
    content: Mapping,
    inside: Containers,
    own: Mapping[str, Tensor],
    places: list[Place],
    prefix: str | None,
    source: str,
) -> str:
    """Why no place was found."""
    if whole := whole_model(content):
        return f"'{source}' holds {whole.said()}"
    keys = [key for _, state in inside for key in state]
    text = f"'{source}' holds no tensor of the model {'under any prefix' if prefix is None else f'below the prefix {prefix!r}'}."
    if prefix is not None and places:
        best = [place for place in places if place.matched == places[0].matched]
        near = did_you_mean(prefix, [name for place in best for name in (place.prefix, place.whole) if name])
        return f'{text} {near} {best[0].matched} of its {len(own)} are in {", ".join(map(str, best[:3]))}.'.replace(
            '  ', ' '
        )
    clash = next((key for key in keys if key in own), None)
    ours = f'{clash} in another shape, {tuple(own[clash].shape)}' if clash else ', '.join(list(own)[:2])
    networks = next((said for _, state in inside if (said := differing(own, state))), '')
    return f'{text} It has {", ".join(keys[:4]) or "no tensors"}, the model has {ours}. {networks}'.rstrip()


def _renamed(
    content: Mapping, own: Mapping[str, Tensor], source: str, layout: str | None
) -> tuple[Containers, list[str]]:
    """The tensors under the names of the given layout, or of the first under which more of the model is found than without."""
    if layout is not None:
        if layout not in key_maps():
            near = did_you_mean(layout, key_maps(), f'Expected one of {", ".join(key_maps())}.')
            raise KeyMapError(f"there is no layout '{layout}'. {near}")
        return containers(key_maps()[layout].apply(content, source)), [f"names of the layout '{layout}'"]
    inside = containers(content)
    most = max((place.matched for place in _places(inside, own)), default=0)
    best: tuple[Containers, list[str]] = inside, []
    names = list(dict.fromkeys(key.split('.')[0] for key in own))
    for said, other in renamings(inside, names) if most < len(own) else ():
        count = max((place.matched for place in _places(other, own)), default=0)
        if count > most:
            most, best = count, (other, [said])
    return best


def renamings(inside: Containers, names: list[str]) -> Iterator[tuple[str, Containers]]:
    """(a note, the same tensors) under the names of each layout; ``names``: of the parts of a network that may be numbered."""
    yield 'its parts are numbered', [(path, numbered(state, names)) for path, state in inside]
    for name, key_map in key_maps().items():
        yield f"names of the layout '{name}'", [(path, key_map.rename(state)) for path, state in inside]


def _places(inside: Containers, own: Mapping[str, Tensor]) -> list[Place]:
    """Every place in a file that contains tensors of the model, best first."""
    found = []
    for path, state in inside:
        fits: Counter[str] = Counter()
        for key, value in state.items():
            words = key.split('.')
            for i in range(len(words)):
                name = '.'.join(words[i:])
                if name in own and own[name].shape == value.shape:
                    fits[key.removesuffix(name)] += 1
        found += [Place(path, prefix, count) for prefix, count in fits.items()]
    return sorted(found, key=lambda place: -place.matched)


def containers(content: Mapping, path: tuple[str, ...] = ()) -> Containers:
    """(path of keys, tensors) of each dict of tensors, eight levels deep. State of optimizers is skipped."""
    state = {INSIDE.sub(r'\1', str(key)): value for key, value in content.items() if isinstance(value, Tensor)}
    found = [(path, state)] if state else []
    for key, value in content.items():
        if isinstance(value, Mapping) and 'optim' not in str(key) and len(path) < 8:
            found += containers(value, (*path, str(key)))
    return found


def _with_counters(own: Mapping[str, Tensor], state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Missing batch counters are set to 1: some frameworks do not save them, and only momentum=None uses them."""
    lacking = [key for key in own if key.endswith(COUNTER) and key not in state]
    has_statistics = [key for key in lacking if key.replace(COUNTER, 'running_var') in state]
    if lacking and len(has_statistics) == len(lacking) and not any(key.endswith(COUNTER) for key in state):
        notes.append(f'{len(lacking)} counters of batches are not in the file and were set to 1')
        return {**state, **{key: torch.ones_like(own[key]) for key in lacking}}
    return state
