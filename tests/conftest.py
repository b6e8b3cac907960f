from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session', autouse=True)
def _single_thread():
    """Two cores are shared with worker processes: one thread each is fastest and repeats exactly."""
    torch.set_num_threads(1)


@pytest.fixture(scope='session')
def golden():
    """name -> dict of the arrays of tests/golden/name.npz (figures of the authors' own code)."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(ROOT / 'tests' / 'golden' / f'{name}.npz', allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load


@pytest.fixture(scope='session')
def repository() -> Path:
    """The checkout: configs, tools and examples live beside the package."""
    return ROOT
