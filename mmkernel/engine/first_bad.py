"""The first module of a step in which a value is not finite, forward and then backward."""

import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmkernel.engine.finite import extremes, floats_in, non_finite_argument
from mmkernel.models import Embeddings
from mmkernel.models.embeddings import group_views


@dataclass
class Finding:
    """Where the first bad value is."""

    where: str  # 'images', 'output', 'between' (code of ``module`` around its parts), 'error', 'gradient', 'norm'
    module: str  # dotted path
    kind: str  # its class
    values: str  # the bad tensor
    operation: str | None = None  # of autograd
    code: str | None = None  # the line of the forward pass that made the operation
    views: list[int] = field(default_factory=list)  # that the bad rows are of
    images: list[int] = field(default_factory=list)  # their sample indices
    inputs: dict[str, dict] = field(default_factory=dict)  # name -> ``extremes``
    parameters: dict[str, dict] = field(default_factory=dict)


@dataclass
class _Call:
    """A module while it runs, and afterwards."""

    path: str
    number: int  # calls of this module on this batch before
    inputs: dict[str, dict]
    index: Tensor | None  # sample indices of its rows
    start: int  # of the operations made inside it, by autograd's count
    end: int = 2**62


class FirstBad:
    """``with FirstBad(model) as look:`` a step; then ``look.found`` is the first bad value, None if all are finite.

    Hooks see the tensors that go into each module and come out of it, and the gradients that each operation of autograd gets
    and gives; those know their module by when they were made. Operations in place are seen as well.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model, self.modules = model, dict(model.named_modules())
        self.found: Finding | None = None
        self.running: list[_Call] = []
        self.done: list[_Call] = []
        self.nodes: dict[Any, None] = {}  # operations that are watched
        self.calls: Counter[str] = Counter()
        self.index: Tensor | None = None
        self.views: list[Tensor] = []  # of the batch at hand

    def __enter__(self) -> 'FirstBad':
        self.handles = []
        for path, part in self.modules.items():
            before, after = self._before(path), self._after(path)
            self.handles += [
                part.register_forward_pre_hook(before, with_kwargs=True),
                part.register_forward_hook(after, with_kwargs=True, always_call=True),
            ]
        with warnings.catch_warnings(action='ignore'):  # torch says that it takes time
            self.anomalies = torch.autograd.set_detect_anomaly(True, check_nan=False)  # hooks see infinity as well
        return self

    def __exit__(self, *error: object) -> None:
        self.anomalies.__exit__(*error)
        for handle in self.handles:
            handle.remove()

    def _before(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if path == 'data_preprocessor':
                self.calls.clear()
            given = {f'input.{name}': value for name, value in {**dict(enumerate(args)), **kwargs}.items()}
            inputs = dict(pair for name, value in given.items() for pair in floats_in(value, name))
            index = next((x.sample_index for x in given.values() if isinstance(x, Embeddings)), self.index)
            call = _Call(path, self.calls[path], {name: extremes(x) for name, x in inputs.items()}, index, _count())
            self.calls[path] += 1
            bad = next((name for name, found in call.inputs.items() if found['share_not_finite']), None)
            if bad and self.found is None and path == 'data_preprocessor':
                index = args[0].get('sample_index') if isinstance(args[0], dict) else None
                call.index, view = None if index is None else torch.as_tensor(index), bad.rpartition('.')[2]
                self._find('images', call, bad, inputs[bad], by_view=int(view) if view.isdecimal() else None)
            elif bad and self.found is None:
                outer = self.running[-1] if self.running else _Call('', 0, call.inputs, index, 0)
                self._find('between', outer, f'what goes into {path or "the model"}', inputs[bad])
            self.running.append(call)

        return hook

    def _after(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            call = self.running.pop()
            call.end = _count()
            self.done.append(call)
            if path == 'data_preprocessor' and isinstance(output, dict):
                self.views, self.index = list(output.get('inputs', [])), output.get('sample_index')
                call.index = self.index
            for name, x in floats_in(output, 'output'):
                if self.found is None and not torch.isfinite(x).all():
                    self._find('output', call, name, x)
            if self.found is None and (error := sys.exc_info()[1]) is not None:  # then there is no output
                text = f'{type(error).__name__}: {error}{non_finite_argument(error) or ""}'
                self._find('error', call, ' '.join(text.split()), torch.zeros(()))
            if not self.running:
                self.watch(output)

        return hook

    def _find(self, where: str, call: _Call, values: str, x: Tensor, by_view: int | None = None, **more: Any) -> None:
        module = self.modules[call.path]
        views, images = self._rows(call, x, by_view)
        own = {name: extremes(p) for name, p in module.named_parameters(recurse=False)}
        found = dict(values=values, views=views, images=images, inputs=call.inputs, parameters=own)
        self.found = Finding(where, call.path, type(module).__name__, **found, **more)

    def _rows(self, call: _Call, x: Tensor, by_view: int | None = None) -> tuple[list[int], list[int]]:
        """(views, sample indices) of the rows of ``x`` with a bad value; empty where its rows are not images."""
        index, bad, parts = call.index, ~torch.isfinite(x.detach()), call.path.split('.')
        B = 0 if index is None else len(index)
        if B and x.ndim == 3 and x.shape[1] == B and 'backbone' not in parts:  # (V, B, q)
            bad, views = bad.any(2), list(range(len(x)))
        elif B and x.ndim and len(x) and len(x) % B == 0:
            bad, views = bad.reshape(-1, B, x[0].numel()).any(2), self._views_of(call, len(x) // B)
        else:
            return [], []
        group, row = bad.nonzero().unbind(1)
        if by_view is not None:
            views = [by_view]
        known = group.tolist() if len(views) == len(bad) else []
        return sorted({views[g] for g in known}), sorted({int(index[r]) for r in row.tolist()})

    def _views_of(self, call: _Call, count: int) -> list[int]:
        """The views whose rows a call has, ``count`` of them; [] where that is not known."""
        model, parts = self.model, call.path.split('.')
        word = getattr(model, 'batching' if 'backbone' in parts else 'neck_batching', 'view')
        chosen = getattr(model, 'target_views' if parts[0] == 'target' else 'online_views', None)
        chosen = list(range(len(self.views)) if chosen is None else chosen)
        groups = group_views([self.views[v] for v in chosen], word) if self.views else []
        group = groups[call.number % len(groups)] if groups and parts[0] != 'head' else []
        return [chosen[v] for v in group] if len(group) == count else []

    def watch(self, value: Any) -> None:
        """See the gradients of all operations that ``value``, a tensor or dicts and lists of such, was made by."""
        if isinstance(value, Embeddings):
            value = vars(value)
        if isinstance(value, (dict, list, tuple)):
            for part in value.values() if isinstance(value, dict) else value:
                self.watch(part)
        left = [value.grad_fn] if isinstance(value, Tensor) and value.grad_fn is not None else []
        while left:
            node = left.pop()
            if node not in self.nodes and not node.name().endswith('AccumulateGrad'):
                self.nodes[node] = None
                node.register_hook(self._gradient(node))
                left += [after for after, _ in node.next_functions if after is not None]

    def _gradient(self, node: Any) -> Any:
        made = node._sequence_nr()

        def hook(gave: tuple, got: tuple) -> None:
            if self.found is not None:
                return
            for x in (*got, *gave):  # a sum of two that are finite may already be infinite as it comes in
                if isinstance(x, Tensor) and x.is_floating_point() and not torch.isfinite(x).all():
                    inside = (call for call in self.done if call.start <= made < call.end)
                    call = max(inside, key=lambda call: call.start, default=_Call('', 0, {}, self.index, 0))
                    what = 'what comes into it' if any(x is y for y in got) else 'what it gives'
                    code = _line(node.metadata.get('traceback_', []))
                    self._find('gradient', call, what, x, operation=node.name(), code=code)
                    return

        return hook


def _count() -> int:
    """The number of the next operation that autograd records in this thread."""
    return torch.autograd._get_sequence_nr()


def _line(trace: list[str]) -> str | None:
    """The innermost line of code outside torch of a traceback of the forward pass."""
    own = [entry for entry in trace if '/torch/' not in entry.splitlines()[0]]
    return ': '.join(part.strip() for part in own[-1].strip().splitlines()[:2]) if own else None
