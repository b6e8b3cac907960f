"""``mmkernel resume``: a run goes on from its folder alone."""

import shutil
from pathlib import Path

import pytest
import torch

from mmkernel.cli import main
from mmkernel.engine import load_config, read_checkpoint

TINY = Path(__file__).parents[1] / 'test_engine/tiny_config.py'


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run of four epochs, which keeps the last three."""
    folder = tmp_path_factory.mktemp('whole')
    main(['train', str(TINY), '--work-dir', str(folder), '--cfg-options', 'log_level=ERROR'])
    return folder


@pytest.fixture
def half(whole, tmp_path):
    """The same, as if it had been killed in its third epoch."""
    folder = tmp_path / 'half'
    shutil.copytree(whole, folder)
    for epoch in (3, 4):
        (folder / f'epoch_{epoch}.pth').unlink()
    return folder


def weights(path):
    content = read_checkpoint(path)
    return content['state_dict'], content['optimizer']['state']


def same(one, other):
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


@pytest.mark.parametrize('named', ['.', 'epoch_2.pth'])
def test_weights_are_those_of_an_uninterrupted_run(whole, half, named):
    main(['resume', str(half / named)])
    same(whole / 'epoch_4.pth', half / 'epoch_4.pth')


def test_it_equals_train_with_resume(half, tmp_path):
    shutil.copytree(half, other := tmp_path / 'other')
    main(['resume', str(half), '--cfg-options', 'train_cfg.max_epochs=3'])
    options = ['log_level=ERROR', 'train_cfg.max_epochs=3']
    main(['train', str(TINY), '--work-dir', str(other), '--resume', '--cfg-options', *options])
    same(half / 'epoch_3.pth', other / 'epoch_3.pth')


def test_a_branch_leaves_the_run_as_it_is(half, tmp_path):
    before = {path.name for path in half.iterdir()}
    main(['resume', str(half), '--out', str(tmp_path / 'branch'), '--cfg-options', 'train_cfg.max_epochs=3'])
    assert (tmp_path / 'branch/epoch_3.pth').is_file()
    assert {path.name for path in half.iterdir()} == before


def test_a_finished_run_says_how_to_train_longer(whole, tmp_path, capsys):
    shutil.copytree(whole, folder := tmp_path / 'done')
    main(['resume', str(folder)])
    said = capsys.readouterr().out
    assert 'epoch_4.pth stands at the end of epoch 4 of 4' in said
    words = said.strip().splitlines()[-1].split()
    assert words == ['mmkernel', 'resume', str(folder), '--cfg-options', 'train_cfg.max_epochs=8']
    main([*words[1:-1], 'train_cfg.max_epochs=5'])
    assert (folder / 'epoch_5.pth').is_file()
    assert load_config(folder / 'config.py').train_cfg.max_epochs == 5


def test_another_objective_goes_on_only_if_it_is_meant(half):
    option = ['--cfg-options', 'model.raises=finite', 'train_cfg.max_epochs=3']
    with pytest.raises(SystemExit, match=r'model.raises: not set -> (.|\n)*--resume-anyway'):
        main(['resume', str(half), *option])
    assert not (half / 'epoch_3.pth').exists()
    main(['resume', str(half), '--anyway', *option])
    assert (half / 'epoch_3.pth').is_file()


@pytest.mark.parametrize(
    'name, said',
    [
        ('hafl', "There is no run .*Did you mean '.*half'"),
        ('half/logs', 'is not a folder of a run.*The folder above is a run: mmkernel resume .*half'),
        ('.', 'Runs in it: .*half'),
        ('empty', 'mmkernel train CONFIG --work-dir FOLDER --resume'),
        ('half/epoch_9.pth', 'There is no run .*Did you mean'),
    ],
)
def test_what_is_no_run(half, name, said):
    (half / 'logs').mkdir()
    (half.parent / 'empty').mkdir()
    with pytest.raises(SystemExit, match=said):
        main(['resume', str(half.parent / name)])
