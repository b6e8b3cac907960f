"""How much of a large intermediate matrix is made at a time."""

from __future__ import annotations

from torch import Tensor


def rows_at_a_time(columns: int, like: Tensor) -> int:
    """Rows of a matrix with that many columns in one block: 256 MB of float32 on a GPU, 16 MB on a CPU."""
    return max(1, 2 ** (26 if like.is_cuda else 22) // max(1, columns))
