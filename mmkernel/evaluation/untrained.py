"""Untrained encoders: built as a baseline, and told from trained ones, whose scores theirs must not pass for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

INITIAL_SD = 0.01  # of the weights of a fresh linear classifier, whose bias is 0


def untrained_encoder(cfg: Any, seed: int = 0) -> nn.Module:
    """The model of ``cfg`` as it is before its first step; the caller's random state is left alone."""
    from mmkernel.models import build_model  # brings timm: seconds that a kNN on cached features need not pay

    with torch.random.fork_rng(devices=[]):  # it is made on the CPU: the random state of no GPU is read or set
        torch.default_generator.manual_seed(seed)
        model = build_model(cfg)
        model.init_weights()
    return model


class UntrainedError(ValueError):
    """Weights that no step has changed."""


def check_trained(model: nn.Module, meta: Mapping[str, Any] | None = None, source: str = 'the model') -> None:
    """UntrainedError, with every sign found, if ``model`` or its head is as it was initialised.

    ``meta``: that of the checkpoint it was loaded from.
    """
    signs = untrained_signs(model, meta or {})
    if signs:
        raise UntrainedError(
            f"'{source}' was never trained: {'; '.join(signs)}. Its figures would describe chance. Train it first "
            '(tools/train.py), or name the checkpoint of a later epoch.'
        )


def untrained_signs(model: nn.Module, meta: Mapping[str, Any]) -> list[str]:
    """What tells that no step was made: the position in the run, batch norms, a queue, cluster labels, a classifier."""
    signs = []
    if meta.get('iter') == 0 or meta.get('epoch') == 0:
        signs.append(f'it was written at epoch {meta.get("epoch")}, step {meta.get("iter")}')
    counters = [part.num_batches_tracked for part in model.modules() if _counts(part)]
    if counters and not any(int(counter) for counter in counters):
        signs.append(f'none of its {len(counters)} batch norms has seen a batch')
    for name, part in model.named_modules():
        if all(hasattr(part, word) for word in ('rows', 'stored', 'enabled')):
            if bool(part.enabled) and not int(part.stored):
                signs.append(f"the queue '{name}' holds its start values")
        elif hasattr(part, 'made') and hasattr(part, 'labels') and not part.made:
            signs.append(f"no image has a cluster label in '{name}'")
        elif name == 'head' and isinstance(part, nn.Linear) and _is_initial(part):
            signs.append("the classifier 'head' holds its initial values (bias 0, weights of sd 0.01)")
    return signs


def _counts(part: nn.Module) -> bool:
    return getattr(part, 'num_batches_tracked', None) is not None


def _is_initial(linear: nn.Linear) -> bool:
    """After one step of any optimizer some bias differs from 0."""
    if linear.bias is None or bool(linear.bias.any()):
        return False
    sd = float(linear.weight.detach().std())
    return not linear.weight.any() or abs(sd / INITIAL_SD - 1) < 0.2
