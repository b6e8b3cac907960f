"""A console that has gone ends no run, and keeps none alive."""

import os
import signal
import sys

import pytest

from mmkernel.engine import PreemptionHook
from mmkernel.engine.last_words import end, say


@pytest.fixture(params=['broken', 'none'])
def gone(request, monkeypatch):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, 'w') as broken:
        monkeypatch.setattr(sys, '__stderr__', broken if request.param == 'broken' else None)
        yield


def test_a_signal_is_noted(gone):
    hook = PreemptionHook()
    hook._note(signal.SIGTERM, None)
    assert hook.asked == signal.SIGTERM


def test_a_process_ends(gone):
    if (pid := os.fork()) == 0:
        try:
            end('nobody hears it', 7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_line_is_said(capfd):
    say('there')
    assert capfd.readouterr().err == 'there\n'
