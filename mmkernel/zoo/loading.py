"""Load weights into a model: a report of every tensor, and an error unless all of them fit."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.distributed.shards import spread_as
from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.network_shapes import differing
from mmkernel.zoo.pins import CheckpointError
from mmkernel.zoo.resampling import resampled
from mmkernel.zoo.shard_files import with_whole_weights
from mmkernel.zoo.tensor_names import find_weights


@dataclass
class LoadReport:
    """Which tensors of a file were loaded into a model, and which of either side were not."""

    matched: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # in the model only
    unexpected: list[str] = field(default_factory=list)  # in the file only
    mismatched: list[str] = field(default_factory=list)  # in both, of different shapes
    notes: list[str] = field(default_factory=list)  # where the weights were found, what was left out or adapted
    taken_for: str = ''  # the network that the shapes of a file tell; '': it was named

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.mismatched)

    def __str__(self) -> str:
        total = len(self.matched) + len(self.missing) + len(self.mismatched)
        text = f'{len(self.matched)}/{total} tensors, {len(self.missing)} missing, {len(self.unexpected)} unexpected'
        if self.mismatched:
            text += f', {len(self.mismatched)} of another shape'
        for name in ('missing', 'unexpected', 'mismatched'):
            if keys := getattr(self, name):
                text += f'; {name}: {", ".join(keys[:6])}' + (f', ... ({len(keys) - 6} more)' if len(keys) > 6 else '')
        return '; '.join([text, *self.notes, *filter(None, [self.taken_for])])


def load_file(
    model: nn.Module, path: str | Path, layout: str | None = None, prefix: str | None = None, adapt_input: bool = False,
    content: Mapping | None = None,
) -> LoadReport:  # fmt: skip
    """Load a checkpoint of any known layout into ``model`` (a backbone or more); every tensor of it must be filled.

    Args:
        layout: one of ``key_maps()`` that renames tensors first; None: found.
        prefix: of the names in the file, if several parts of it fit ('module.encoder_k.'); None: found.
        adapt_input: see ``load_weights``.
        content: of the file, if it has been read already.

    Errors: CheckpointError for another architecture, a layer without weights in the file, names that the model does not have,
    numbers that are not finite, or a file that cannot be read without running code.
    """
    content = with_whole_weights(read_checkpoint(path) if content is None else content, path)
    state, notes = find_weights(model, content, str(path), layout, prefix)
    bad = [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
    if bad:
        raise CheckpointError(f"'{path}' has numbers that are not finite in {len(bad)} tensors: {', '.join(bad[:6])}.")
    return load_weights(model, state, source=str(path), adapt_input=adapt_input, notes=notes)


def load_weights(
    model: nn.Module,
    state: dict[str, Any],
    strict: bool = True,
    source: str = 'state dict',
    adapt_input: bool = False,
    notes: list[str] | None = None,
    resample: bool = True,
) -> LoadReport:
    """Copy ``state`` into ``model``; CheckpointError with the whole report unless every tensor fits.

    Positions of a transformer for images of another size are interpolated, and so are patches of another size; see ``resampled``.

    Args:
        strict: False loads what fits and warns about the rest. A file of which nothing fits is still refused.
        adapt_input: convert the filters of the first convolution to another number of channels; see ``adapted``.
        notes: added to the report.
        resample: False refuses positions and patches of another size.
    """
    for key, value in model.state_dict().items():
        given = state.get(key, value)
        if isinstance(value, Tensor) and not (isinstance(given, Tensor) and given.is_complex() == value.is_complex()):
            raise CheckpointError(
                f"'{source}' has a {type(given).__name__} as '{key}'; expected a tensor of {value.dtype}."
            )
    for name, module in model.named_modules():
        if hasattr(module, 'fit_buffers'):
            prefix = f'{name}.' if name else ''
            module.fit_buffers({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    report, stem, filters = LoadReport(notes=list(notes or [])), *_first_convolution(model, state)
    if adapt_input and filters is not None and filters.shape[1] != stem.in_channels:
        key = next(key for key, value in state.items() if value is filters)
        report.notes.append(f'{key} adapted from {filters.shape[1]} to {stem.in_channels} channels')
        state = {**state, key: adapted(filters, stem.in_channels)}
    if resample:
        state, said = resampled(model, state)
        report.notes += said
    own = model.state_dict()
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
        part = report.matched and not (report.unexpected or report.mismatched or differing(own, state))
        what = 'fills the model only in part' if part else 'is a checkpoint of another architecture'
        raise CheckpointError(f"'{source}' {what}: {report}. {_likely_fix(model, state, report)}")
    if not report.exact:
        warnings.warn(f"'{source}' fits only in part: {report}.", stacklevel=2)
    model.load_state_dict({key: spread_as(own[key], state[key]) for key in report.matched}, strict=False)
    return report


def _first_convolution(model: nn.Module, state: Mapping[str, Any]) -> tuple[nn.Conv2d | None, Tensor | None]:
    """(the first convolution, its filters in a file); None for what does not exist."""
    for name, part in model.named_modules():
        if isinstance(part, nn.Conv2d):
            filters = state.get(f'{name}.weight')
            return part, filters if isinstance(filters, Tensor) and filters.ndim == 4 else None
    return None, None


def adapted(weight: Tensor, channels: int) -> Tensor:
    """Filters (O, I, h, w) -> (O, channels, h, w), I = 1 or 3.

    3 -> n: timm's ``adapt_input_conv``. n = 1: the sum over colours, so a grey image (x) gives what (x, x, x) gave; else colours
    repeated in their order, times 3 / n. 1 -> n: the filter in each channel, divided by n. CheckpointError for other numbers.
    """
    from timm.models import adapt_input_conv  # seconds that a list of names need not pay

    given = weight.shape[1]
    if given == channels:
        return weight
    if given == 1:
        return weight.repeat(1, channels, 1, 1) / channels
    if given == 3:
        return adapt_input_conv(channels, weight)
    raise CheckpointError(f'filters for {given} channels cannot be adapted to {channels}: only those for 1 or 3 can.')


def _likely_fix(model: nn.Module, state: dict[str, Any], report: LoadReport) -> str:
    own, (stem, filters) = model.state_dict(), _first_convolution(model, state)
    if filters is not None and filters.shape[2:] != stem.weight.shape[2:]:
        return (
            f'The first convolution is {filters.shape[2]}x{filters.shape[3]} in the file and {stem.kernel_size[0]}x'
            f'{stem.kernel_size[1]} in the model: small_images=True makes a 3x3 one, patch_size that of a transformer.'
        )
    if filters is not None and filters.shape[1] != stem.weight.shape[1] and stem.groups == 1:
        return (
            f'The file is made for images of {filters.shape[1]} channels, the model takes {stem.in_channels}: '
            f'in_channels={filters.shape[1]} builds the model of the file; adapt_input=True adapts the filters.'
        )
    if text := differing(own, state):
        return text
    other = [key.split(' ')[0] for key in report.mismatched]
    if (
        other
        and not report.missing + report.unexpected
        and all(re.search('pos|attention_bias', key) and {*own[key].shape} & {*state[key].shape} - {1} for key in other)
    ):
        return (
            'The grid of patches differs, and positions were not resampled (timm has no rule for this network, the grid of the '
            'file is no square, or the run is resumed): set img_size and patch_size of the backbone to those of the file.'
        )
    statistics = ('running_mean', 'running_var', 'num_batches_tracked')
    if not report.unexpected + report.mismatched and all(key.endswith(statistics) for key in report.missing):
        return 'The file lacks the statistics of batch norm: save model.state_dict(), in which they are beside the parameters.'
    rest = [key for key in report.missing if not key.startswith('backbone.')]
    if rest and all(f'backbone.{key.split("backbone.")[-1]}' in own or key.startswith('fc.') for key in state):
        return (
            'It holds an encoder and nothing that stands on it, which would stay random: '
            'mmkernel.zoo.load_file(model.backbone, FILE) loads the encoder alone.'
        )
    return 'Use the config that it was trained with; load_weights(..., strict=False) loads the tensors that match.'
