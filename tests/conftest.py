import os
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # or a GPU's matrix products do not repeat; read only once


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device, and torch sees none')


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def device(request):
    """The test runs once on the CPU and, where there is one, once on a GPU."""
    return torch.device(request.param)


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
