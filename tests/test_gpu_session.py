"""Which sessions see a GPU: those that ask for the tests marked ``gpu``, and no others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize(
    'markers, seen',
    [
        ('not slow and not gpu', False),
        ('slow', False),
        ('', False),
        ('gpu', True),
        ('gpu and not slow', True),
        ('not slow and gpu', True),
    ],
)
def test_a_session_of_gpu_tests_alone_sees_one(request, markers, seen):
    conftest = request.config.pluginmanager.get_plugin(str(Path(__file__).with_name('conftest.py')))
    assert conftest.gpu_session(markers) == seen


def test_others_do_not_whatever_they_start():
    assert not torch.cuda.is_available()
    child = "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    assert subprocess.check_output([sys.executable, '-c', child], text=True).strip() == "''"
    assert os.environ['CUDA_VISIBLE_DEVICES'] == ''
