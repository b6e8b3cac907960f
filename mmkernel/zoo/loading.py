"""Weights that never load silently into the wrong model: a report of every key, an error unless all fit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmkernel.zoo.files import CheckpointError

PREFIXES = ('module.', '_orig_mod.')  # of DistributedDataParallel and torch.compile


@dataclass
class LoadReport:
    """Which keys of a checkpoint met which keys of a model."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the model only
    unexpected: list[str] = field(default_factory=list)  # in the file only
    mismatched: list[str] = field(default_factory=list)  # in both, of different shapes

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        lines = [f'{len(self.matched)} keys match']
        for name in ('missing', 'unexpected', 'mismatched'):
            keys = getattr(self, name)
            if keys:
                more = f', ... ({len(keys) - 6} more)' if len(keys) > 6 else ''
                lines.append(f'{len(keys)} {name}: {", ".join(keys[:6])}{more}')
        return '; '.join(lines)


def weights_of(checkpoint: dict) -> dict[str, Tensor]:
    """The state dict in a checkpoint (or the checkpoint itself, if it is one), without wrappers' prefixes."""
    state = checkpoint.get('state_dict', checkpoint)
    for prefix in PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    return state


def load_weights(
    model: nn.Module, state: dict[str, Any], strict: bool = True, source: str = 'state dict'
) -> LoadReport:
    """Copy ``state`` into ``model``; CheckpointError with the whole report unless every key fits.

    ``strict=False`` loads what fits and warns about the rest, but still refuses a file of which nothing fits.
    """
    fit_buffers(model, state)
    own, report = model.state_dict(), LoadReport()
    for key, value in own.items():
        if key not in state:
            report.missing.append(key)
        elif getattr(state[key], 'shape', None) != value.shape:
            given = tuple(getattr(state[key], 'shape', ()))
            report.mismatched.append(f'{key} (file {given}, model {tuple(value.shape)})')
        else:
            report.matched.append(key)
    if hasattr(model, 'really_missing'):
        report.missing = model.really_missing(report.missing)
    report.unexpected = [key for key in state if key not in own]
    if not report.matched or (strict and not report.exact):
        raise CheckpointError(
            f"'{source}' is a checkpoint of another architecture: {report}. "
            'Use the config that it was trained with, or strict=False to load the keys that match.'
        )
    if not report.exact:
        warnings.warn(f"'{source}' fits only in part: {report}.", stacklevel=2)
    model.load_state_dict({key: state[key] for key in report.matched}, strict=False)
    return report


def fit_buffers(model: nn.Module, state: dict[str, Any]) -> None:
    """Let modules with buffers as large as the data set (labels of images) take their size from the file."""
    for name, module in model.named_modules():
        if hasattr(module, 'fit_buffers'):
            prefix = f'{name}.' if name else ''
            module.fit_buffers({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
