"""What tests do, in a file, the moment they do it: a run that is cut short leaves what it found.

    PYTHONPATH=tests python -m pytest -p record --record FILE ...

JSON lines: what was run where; each failure and each error with its traceback; every skip; every 30 seconds, and at the end,
how many passed and which test ran longest. With pytest-xdist the process that hands the tests out writes.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / 'benchmarks'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--record', type=Path, metavar='FILE', help='append JSON lines about the tests there')


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption('--record') and not hasattr(config, 'workerinput'):
        config.pluginmanager.register(Recorder(config.getoption('--record'), config.invocation_params.args))


class Recorder:
    def __init__(self, file: Path, arguments: tuple) -> None:
        self.file, self.counts, self.longest, self.written = file, Counter(), (0.0, ''), time.monotonic()
        sys.path.insert(0, str(BENCHMARKS))
        try:
            from harness import circumstances, publishable
        finally:
            sys.path.remove(str(BENCHMARKS))
        self.publishable = publishable
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        command = ' '.join(['python -m pytest', *map(str, arguments)])
        self.write(**{**circumstances(device), 'command': command, 'clock': 'wall clock'})

    def write(self, **line: object) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open('a') as lines:
            lines.write(json.dumps(self.publishable(line)) + '\n')

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == 'call':
            self.longest = max(self.longest, (report.duration, report.nodeid))
        if report.when == 'call' or not report.passed:
            self.counts[report.outcome] += 1
        if report.failed:
            text = str(report.longrepr)[-6000:]
            self.write(outcome=f'failed in {report.when}', test=report.nodeid, seconds=report.duration, text=text)
        elif report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.write(outcome='skipped', test=report.nodeid, text=reason)
        if time.monotonic() - self.written > 30:
            self.sum_up('so far')

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.write(outcome='not collected', test=report.nodeid, text=str(report.longrepr)[-6000:])

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.sum_up(f'over, exit status {int(exitstatus)}')

    def sum_up(self, state: str) -> None:
        self.written = time.monotonic()
        self.write(state=state, **self.counts, longest=dict(test=self.longest[1], seconds=self.longest[0]))
