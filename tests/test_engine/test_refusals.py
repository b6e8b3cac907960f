"""Which errors are refusals, what they say of the config, and what a refused start leaves."""

import pytest
import torch

from mmkernel.checks import check_numbers
from mmkernel.engine import ConfigError
from mmkernel.engine.refusals import FolderAsFound, building, is_refusal
from mmkernel.engine.run_folder import RunFolder
from mmkernel.registry import MODELS


def error_of(function):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return caught.value


@pytest.mark.parametrize(
    'function, refused',
    [
        (lambda: check_numbers(k=0), True),  # a raise of ours
        (lambda: MODELS.get('JointEmbeding'), True),
        (lambda: check_numbers(k=0, least='x'), False),  # an error inside ours
        (lambda: torch.zeros(2, 3) @ torch.zeros(2, 3), False),
        (lambda: (_ for _ in ()).throw(ValueError('of somebody else')), False),
    ],
)
def test_a_refusal_is_a_raise_of_this_package(function, refused):
    assert is_refusal(error_of(function)) is refused


def test_an_error_names_the_innermost_part():
    neck = dict(type='MLPNeck', dims=(4, 0), in_dim=4)
    cfg = dict(first=dict(neck={**neck, 'dims': (4, 2)}), second=dict(inner=[dict(neck=neck)]))
    with (
        pytest.raises(ConfigError, match=r'^second\.inner\.0\.neck: MLPNeck\.dims=0; expected'),
        building(cfg, 'second'),
    ):
        MODELS.build(neck)
    with pytest.raises(
        ConfigError, match=r'^first: ZeroDivisionError: division by zero \(MMKERNEL_TRACEBACK=1 shows where\)$'
    ):  # noqa: SIM117
        with building(cfg, 'first'):
            raise ZeroDivisionError('division by zero')


@pytest.mark.parametrize(
    'error', [FileNotFoundError('no file'), torch.OutOfMemoryError('no memory'), ConfigError('said already')]
)
def test_what_is_said_already_stays(error):
    with pytest.raises(type(error), match=f'^{error}$'), building({}, 'model'):
        raise error


def test_a_folder_is_left_as_it_was(tmp_path):
    (tmp_path / 'config.py').write_text('old')
    (tmp_path / 'config.py.old').write_text('older')
    found = FolderAsFound(tmp_path)
    (tmp_path / 'config.py').rename(tmp_path / 'config.py.old2')
    (tmp_path / 'config.py').write_text('new')
    (tmp_path / 'logs').mkdir()
    (tmp_path / 'logs/a.log').write_text('x')
    (tmp_path / 'of somebody else').write_text('x')  # who came in between
    found.restore('logs')
    there = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert there == {'config.py': 'old', 'config.py.old': 'older', 'of somebody else': 'x'}


def test_a_new_folder_goes_unless_somebody_uses_it(tmp_path):
    found = FolderAsFound(tmp_path / 'new')
    (tmp_path / 'new/logs').mkdir(parents=True)
    (tmp_path / 'new/note').write_text('x')
    found.restore('logs')
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['note']
    (tmp_path / 'new/note').unlink()
    found.restore('logs')
    assert not (tmp_path / 'new').exists()


def test_a_start_that_never_held_the_folder_leaves_it_to_who_does(tmp_path):
    found = FolderAsFound(tmp_path / 'new')
    folder = RunFolder(tmp_path / 'new')  # of a run that was faster
    folder.path.mkdir()
    folder.take()
    folder.write_config('its own')
    found.restore(None)
    there = {path.name for path in folder.path.iterdir()}
    folder.release()
    assert there == {'config.py', 'run.json', '.run.lock'}
    found = FolderAsFound(tmp_path / 'empty')
    (tmp_path / 'empty').mkdir()
    found.restore(None)
    assert not (tmp_path / 'empty').exists()
