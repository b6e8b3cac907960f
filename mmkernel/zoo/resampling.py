"""Weights of a transformer for images, or patches, of another size: timm's own rules for each of its families."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

FAILED = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
Pair = tuple[int, int]


def resampled(model: nn.Module, state: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(state, notes): tensors of positions and patches whose shape is not the model's, interpolated as timm does.

    Position embeddings go from the grid of patches in the file to that of the model (bicubic, antialiased); the entries of class
    token and registers stay as they are. Tables of relative positions and the projection of patches (by the pseudo-inverse of a
    resize, Beyer et al., CVPR 2023) follow the ``checkpoint_filter_fn`` of the network's family. Every timm network inside
    ``model`` is looked at, a momentum copy too. What timm has no rule for keeps its shape.
    """
    state, own, notes = dict(state), model.state_dict(), []
    for name, part in model.named_modules():
        prefix, rule = f'{name}.' if name else '', _rule_of(part)
        other = {
            key.removeprefix(prefix): state[key] for key, value in own.items()
            if rule and key.startswith(prefix) and isinstance(state.get(key), Tensor) and state[key].shape != value.shape
        }  # fmt: skip
        if not other:
            continue
        grids = _grids(other.get('pos_embed'), part)
        made = {'pos_embed': _positions(other['pos_embed'], part, *grids)} if grids else {}
        made = _by_rule(rule, {key: value for key, value in other.items() if key not in made}, part) | made
        fits = [key for key in other if key in made and made[key].shape == own[prefix + key].shape]
        state |= {prefix + key: made[key] for key in fits}
        for key in fits[:3]:
            sizes = grids if grids and key == 'pos_embed' else (tuple(other[key].shape), tuple(made[key].shape))
            notes.append(f'{prefix}{key} resampled from {" to ".join(" x ".join(map(str, size)) for size in sizes)}')
        if len(fits) > 3:
            notes.append(f'{len(fits) - 3} more resampled')
    return state, notes


def _rule_of(part: nn.Module) -> Callable | None:
    """timm's rule for weights of the family of ``part``; None for other modules."""
    where = type(part).__module__
    is_network = where.startswith('timm.models.') and hasattr(part, 'pretrained_cfg')
    return getattr(sys.modules[where], 'checkpoint_filter_fn', lambda state, model: state) if is_network else None


def _by_rule(rule: Callable, state: dict[str, Tensor], part: nn.Module) -> dict[str, Tensor]:
    try:
        return rule(state, part) if state else {}
    except FAILED:  # shapes that the rule was not made for: they still differ, which the caller reports
        return {}


def _grids(positions: Tensor | None, part: nn.Module) -> tuple[Pair, Pair] | None:
    """Rows and columns of patches of an embedding (1, prefix + rows x columns, C) in a file and in ``part``; None: unknown.

    The grid of the file is a square, or else one with the aspect of the model's.
    """
    own, grid = getattr(part, 'pos_embed', None), getattr(getattr(part, 'patch_embed', None), 'grid_size', None)
    if positions is None or own is None or grid is None or (positions.ndim, own.ndim) != (3, 3):
        return None
    if positions.shape[::2] != own.shape[::2]:
        return None
    count = positions.shape[1] - _prefix(part)
    shrunk = math.sqrt(max(count, 0) / math.prod(grid))
    sides = (math.isqrt(max(count, 0)),) * 2, tuple(round(side * shrunk) for side in grid)
    return next(((side, tuple(grid)) for side in sides if math.prod(side) == count > 0), None)


def _prefix(part: nn.Module) -> int:
    """Entries of a position embedding that belong to no patch: class token, registers."""
    return part.pos_embed.shape[1] - math.prod(part.patch_embed.grid_size)


def _positions(embedding: Tensor, part: nn.Module, old: Pair, new: Pair) -> Tensor:
    from timm.layers import resample_abs_pos_embed  # seconds that a list of names need not pay

    return resample_abs_pos_embed(embedding, list(new), list(old), _prefix(part))


def with_positions(own: Mapping[str, Any], state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """(state, notes): a class token that has no position of its own in the model gets that of the file's added, as timm does."""
    shapes = [getattr(each.get('pos_embed'), 'shape', ()) for each in (own, state)]
    if {'cls_token', 'pos_embed'} <= own.keys() & state.keys() and all(len(shape) == 3 for shape in shapes):
        model, file = (shape[1] for shape in shapes)
        if [math.isqrt(count) ** 2 == count for count in (model, file, file - 1)] == [True, False, True]:
            first, rest = state['pos_embed'][:, :1], state['pos_embed'][:, 1:]
            said = ['the position of the class token was added to it']
            return {**state, 'cls_token': state['cls_token'] + first, 'pos_embed': rest}, said
    return state, []
