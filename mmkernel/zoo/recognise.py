"""Which part of a published file are the weights of this model: the container and the prefix under which most names fit.

Nothing is known of methods: every prefix in the file is tried against the names and shapes of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.key_map import KeyMapError, key_maps
from mmkernel.zoo.loading import LoadReport, load_weights
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.search import choose, containers, places

# What stands beside an encoder or on top of it, and is not wanted when only the encoder is.
OTHER_PARTS = {
    'classifier', 'decoder', 'encoder_k', 'fc', 'head', 'heads', 'linear', 'memory', 'neck', 'predictor', 'projection_head',
    'projector', 'prototypes', 'queue', 'queue_ptr',
}  # fmt: skip
COUNTER = 'num_batches_tracked'


def load_file(
    model: nn.Module, path: str | Path, layout: str | None = None, prefix: str | None = None, adapt_input: bool = False
) -> LoadReport:
    """Load a checkpoint of any known layout into ``model`` (a backbone or more); every tensor of it must be filled.

    Args:
        layout: one of ``key_maps()`` that renames tensors first; None: found.
        prefix: of the names in the file, where several parts fit ('module.encoder_k.'); None: found.
        adapt_input: see ``load_weights``.

    Errors: CheckpointError for another architecture, a layer that nothing fills, names that no part of the model has,
    numbers that are not finite, or a file that cannot be read without running code.
    """
    return load_content(model, read_checkpoint(path), str(path), layout, prefix, adapt_input)


def load_content(
    model: nn.Module,
    content: Mapping,
    source: str,
    layout: str | None = None,
    prefix: str | None = None,
    adapt_input: bool = False,
) -> LoadReport:
    """The same for a file that has been read."""
    state, notes = recognise(model, content, source, layout, prefix)
    bad = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(
            f"'{source}' has numbers that are not finite in {len(bad)} tensors: {', '.join(bad[:6])}."
        )
    return load_weights(model, state, source=source, adapt_input=adapt_input, notes=notes)


def recognise(
    model: nn.Module,
    content: Mapping,
    source: str = 'the file',
    layout: str | None = None,
    prefix: str | None = None,
) -> tuple[dict[str, Tensor], list[str]]:
    """(state dict under the model's names, notes): what is not the model's is left aside only if it is a known other part."""
    own = model.state_dict()
    content, renamed = _renamed(content, own, source, layout)
    found = [place for place in places(content, own) if prefix is None or place.prefix == prefix]
    if not found:
        what = f"below the prefix '{prefix}'" if prefix is not None else 'under any prefix'
        names = [key for _, state in containers(content) for key in state][:4]
        raise CheckpointError(
            f"'{source}' holds no tensor of the model {what}. It has {', '.join(names) or 'no tensors'}, the model has "
            f'{", ".join(list(own)[:2])}. Is it a file of this architecture?'
        )
    best = choose(found, source)
    inside = dict(containers(content))[best.path]
    state = {key[len(best.prefix) :]: value for key, value in inside.items() if key.startswith(best.prefix)}
    beside = Counter(key.split('.')[0] for key in inside if not key.startswith(best.prefix))
    for key in [key for key in state if key not in own and key.split('.')[0] in OTHER_PARTS]:
        beside[key.split('.')[0]] += 1
        del state[key]
    notes = renamed + ([f'found in {best}'] if best.words != [''] else [])
    equal = [str(place) for place in found if place != best and place.matched == best.matched]
    if equal:
        notes.append(f'not used: {", ".join(equal)}')
    if beside:
        notes.append(f'left aside: {", ".join(f"{word} ({count})" for word, count in beside.items())}')
    return _with_counters(own, state, notes), notes


def _renamed(content: Mapping, own: Mapping[str, Tensor], source: str, layout: str | None) -> tuple[Mapping, list[str]]:
    """Names by the rules of a layout: the one given, or the first under which more of the model is found than without."""
    if layout is not None:
        if layout not in key_maps():
            raise KeyMapError(f"there is no layout '{layout}'; expected one of {', '.join(key_maps())}.")
        return key_maps()[layout].apply(content, source), [f"names of the layout '{layout}'"]
    most = max((place.matched for place in places(content, own)), default=0)
    tried = key_maps() if most < 0.9 * len(own) else {}
    for name, key_map in tried.items():
        try:
            state = key_map.apply(content, source)
        except KeyMapError:
            continue
        if places(state, own) and places(state, own)[0].matched > most:
            return state, [f"names of the layout '{name}'"]
    return content, []


def _with_counters(own: Mapping[str, Tensor], state: dict[str, Tensor], notes: list[str]) -> dict[str, Tensor]:
    """Counters of batches that a file lacks are 1: some frameworks do not keep them, and only momentum=None uses them."""
    lacking = [key for key in own if key.endswith(COUNTER) and key not in state]
    has_statistics = [key for key in lacking if key.replace(COUNTER, 'running_var') in state]
    if lacking and len(has_statistics) == len(lacking) and not any(key.endswith(COUNTER) for key in state):
        notes.append(f'{len(lacking)} counters of batches are not in the file and were set to 1')
        return {**state, **{key: torch.ones_like(own[key]) for key in lacking}}
    return state
