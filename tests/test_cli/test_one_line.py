"""How every command and script speaks to a person: warnings once and in one line, errors without a traceback."""

import warnings

import pytest

from mmkernel.cli import one_line


def test_a_warning_that_comes_again_is_said_once(capsys):
    with one_line('x.py'):
        warnings.simplefilter('always')
        for text in ('few images', 'few images', 'no [bold] class'):
            warnings.warn(text, stacklevel=1)
    assert capsys.readouterr().err == 'warning: few images\nwarning: no [bold] class\n'


@pytest.mark.parametrize(('error', 'code'), [(ValueError('k = 0'), 'x.py: k = 0'), (KeyboardInterrupt(), 130)])
def test_ends_in_one_line(error, code):
    with pytest.raises(SystemExit) as end, one_line('x.py'):
        raise error
    assert end.value.code == code


def test_a_mistake_of_ours_shows_where():
    with pytest.raises(ZeroDivisionError), one_line('x.py'):
        1 // 0  # noqa: B018
