"""What all tests share: the graphics cards they see, one thread each, golden figures.

Tests compare runs bit for bit and start gloo processes, so they see no GPU, whatever the machine has. Those marked ``gpu``
are the ones about a GPU; they run in a session of their own, ``pytest -m gpu``, and in no other.
"""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # or a GPU's matrix products do not repeat; read only once


def gpu_session(markers: str) -> bool:
    """Whether ``pytest -m markers`` asks for tests of a GPU."""
    return re.search(r'(?<!not )\bgpu\b', markers) is not None


def pytest_configure(config):
    if not gpu_session(config.option.markexpr):
        os.environ['CUDA_VISIBLE_DEVICES'] = ''  # before CUDA starts; workers and child processes inherit it


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """``-n auto``: a process per core that this one may use; beyond eight, starting them costs more than they bring."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(cores, 8)


def pytest_runtest_setup(item):
    if item.get_closest_marker('gpu') and not torch.cuda.is_available():
        pytest.skip('needs a CUDA device, and a session that sees one: pytest -m gpu')


@pytest.fixture(params=['cpu', pytest.param('cuda', marks=pytest.mark.gpu)])
def device(request):
    """The test runs once on the CPU and, in a session of GPU tests, once on a GPU."""
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
