"""How exactly and how reproducibly this process computes: TF32, and kernels that give the same bits twice."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

TF32 = (True, False, 'convolutions')


def check_numerics(cfg: Mapping[str, Any]) -> None:
    """ValueError for an unknown ``tf32``, and for a search of the fastest kernels beside ``deterministic=True``."""
    tf32, env = cfg.get('tf32', 'convolutions'), cfg.get('env_cfg') or {}
    if not any(tf32 is known or tf32 == known == 'convolutions' for known in TF32):
        raise ValueError(f"tf32 = {tf32!r}; expected True, False or 'convolutions'.")
    before = env.get('matmul_precision', 'highest')  # runs of an earlier version wrote 'highest': what the default is
    if before != 'highest':
        raise ValueError(
            f'env_cfg.matmul_precision = {before!r} is not read. Write tf32=True (products and convolutions), '
            "'convolutions' or False at the top level."
        )
    if (cfg.get('randomness') or {}).get('deterministic') and env.get('cudnn_benchmark'):
        raise ValueError(
            'randomness.deterministic=True and env_cfg.cudnn_benchmark=True contradict each other: the benchmark takes '
            'whichever kernel is the fastest at the moment. Leave cudnn_benchmark out.'
        )


def set_numerics(cfg: Mapping[str, Any]) -> None:
    """The one place that sets them, before the first kernel runs.

    ``tf32`` of float32 inputs: True: matrix products and convolutions; 'convolutions': these alone, as PyTorch does by
    itself; False: neither. ``randomness.deterministic``: kernels that give the same bits twice, or an error where there is
    none; otherwise cuDNN tries several and keeps the fastest (``env_cfg.cudnn_benchmark=False``: it does not).
    """
    check_numerics(cfg)
    tf32, deterministic = cfg.get('tf32', 'convolutions'), bool((cfg.get('randomness') or {}).get('deterministic'))
    torch.set_float32_matmul_precision('high' if tf32 is True else 'highest')
    if torch.backends.cudnn.allow_tf32 != bool(tf32):  # some versions of torch warn about this name when it is set
        torch.backends.cudnn.allow_tf32 = bool(tf32)
    torch.backends.cudnn.benchmark = bool((cfg.get('env_cfg') or {}).get('cudnn_benchmark', not deterministic))
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS asks for it, and reads it once
    torch.use_deterministic_algorithms(deterministic)  # off again, too, in the process of an earlier run
