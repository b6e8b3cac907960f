"""How many kernels a computation would launch on a GPU, counted on a CPU.

    with Launches() as launches:
        loss(z).backward()
    assert launches.total <= 50, launches

Counted is every operator that reaches the device. Views and uninitialised memory cost nothing and are left out; an
operator that PyTorch composes of others counts by its parts. What one operator does inside (a sort, an eigh) counts once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_COMPOSITES = ('CompositeExplicitAutograd', 'CompositeExplicitAutogradNonFunctional')  # the same code on every device
# Views that their schema does not mark as such, memory without content, and questions that the host answers.
_FREE = frozenset(
    '_unsafe_view _reshape_alias reshape empty empty_like new_empty empty_strided new_empty_strided lift_fresh '
    'set_ resize_ as_strided_ sym_size sym_stride sym_numel is_pinned _has_compatible_shallow_copy_type '
    '_record_function_enter_new _record_function_exit'.split()
)

_WHOLE = frozenset(('convolution', 'convolution_backward'))  # composed on a CPU, one call of a library on a GPU


class Launches(TorchDispatchMode):
    """The operators that ran inside, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.largest = 0  # bytes of the largest tensor that an operator made

    @property
    def total(self) -> int:
        return sum(self.names.values())

    @property
    def host_reads(self) -> int:
        """How often the host waited for a value of the device: ``.item()``, ``bool(tensor)``, ``nonzero``, ``equal``."""
        return sum(self.names[name] for name in ('_local_scalar_dense', 'nonzero', 'equal', 'masked_select'))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.split('::')[1]
        if func.is_view or name in _FREE:
            return func(*args, **kwargs)
        before, key = self.total, None if _one_for_all(name, args) else _composed_by(func)
        if key is not None:
            with self:  # its parts come back here
                result = func._op_dk(key, *args, **kwargs)
        else:
            result = func(*args, **kwargs)
        if key is None or self.total == before:
            self.names[name] += 1
            made = [] if func._schema.is_mutable else [x for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
            self.largest = max([self.largest, *(x.numel() * x.element_size() for x in made)])
        return result

    def __repr__(self) -> str:
        return f'{self.total} launches: ' + ', '.join(f'{name} {n}' for name, n in self.names.most_common())


@contextmanager
def kept_for_backward() -> Iterator[list[int]]:
    """Sizes in bytes of the distinct tensors that autograd keeps; parameters and views of one storage count once."""
    kept: dict[int, torch.Tensor] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x
        return x

    sizes: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield sizes
    sizes.extend(x.untyped_storage().nbytes() for x in kept.values())


def _one_for_all(name: str, args: tuple) -> bool:
    """Whether an operator on lists of tensors has kernels of its own on a GPU: lists of different shapes are taken in turn."""
    lists = [x for x in args if isinstance(x, (list, tuple)) and x and isinstance(x[0], torch.Tensor)]
    return name.startswith('_foreach_') and all(
        a.shape == b.shape for x in lists for a, b in zip(lists[0], x, strict=True)
    )


def _composed_by(func: Any) -> torch._C.DispatchKey | None:
    """Where PyTorch builds this operator of others on every device, or None."""
    name = func._schema.name + (f'.{func._schema.overload_name}' if func._schema.overload_name else '')
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    if has(name, 'CPU') or name.endswith('Scalar') or func._schema.name.split('::')[1] in _WHOLE:
        return None  # with a number as operand it is the operator of two tensors
    return next((getattr(torch._C.DispatchKey, key) for key in _COMPOSITES if has(name, key)), None)
