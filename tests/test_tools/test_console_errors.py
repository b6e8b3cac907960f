"""How every benchmark speaks to a person: warnings once and in one line, errors without a traceback."""

import importlib.util
import warnings
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / 'tools/benchmarks/console_errors.py'


@pytest.fixture
def run():
    spec = importlib.util.spec_from_file_location('console_errors', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run


def test_a_warning_that_comes_again_is_said_once(run, capsys):
    def main():
        warnings.simplefilter('always')
        for text in ('few images', 'few images', 'no [bold] class'):
            warnings.warn(text, stacklevel=1)

    run(main)
    assert capsys.readouterr().err == 'warning: few images\nwarning: no [bold] class\n'


@pytest.mark.parametrize(
    ('error', 'code', 'said'),
    [(ValueError('k = 0'), 1, 'ValueError: k = 0\n'), (KeyboardInterrupt(), 130, 'interrupted\n')],
)
def test_ends_in_one_line(run, capsys, error, code, said):
    def main():
        raise error

    with pytest.raises(SystemExit) as end:
        run(main)
    assert end.value.code == code
    assert capsys.readouterr().err == said


def test_a_mistake_of_ours_shows_where(run):
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)
