"""Configs of one's own that inherit recipes of the package, from any folder."""

import json

import pytest

from mmkernel.cli import main
from mmkernel.engine import ConfigError, load_config
from mmkernel.engine.config_file import read_config, recipes_of

RECIPE = 'mmkernel::sfrik/digits_L3.py'
SMALL = """
model = dict(backbone=dict(channels=(4, 4, 4, 4)), neck=dict(dims=(16, 16)))
train_cfg = dict(max_epochs=1)
train_dataloader = dict(num_batch_per_epoch=2, batch_size=16, num_workers=0, persistent_workers=False)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Outside the checkout, with a file to inherit from."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'parts').mkdir()
    (tmp_path / 'parts/longer.py').write_text("helper = dict(a=1)\ncustom = ['x']\n")
    return tmp_path


@pytest.mark.parametrize(
    'base',
    [
        repr(RECIPE), "'mmkernel::sfrik/digits_L3'", "'mmkernel::configs/sfrik/digits_L3.py'", "'configs/sfrik/digits_L3.py'",
        f"['{RECIPE}']", f"['{RECIPE}', 'parts/longer.py']", f"['./parts/longer.py', '{RECIPE}']", "'parts/mine.py'",
    ],
)  # fmt: skip
@pytest.mark.parametrize('where', ['.', 'deep/below'])
def test_recipes_of_the_package_are_bases_in_any_folder(folder, base, where, repository):
    (folder / where).mkdir(parents=True, exist_ok=True)
    (folder / 'parts/mine.py').write_text(f"_base_ = ['longer.py', '{RECIPE}']\n")
    base = base.replace('./parts', 'parts').replace('parts/', f'{folder}/parts/' if where != '.' else 'parts/')
    (folder / where / 'own.py').write_text(f'_base_ = {base}\ntrain_cfg = dict(max_epochs=7)\n')
    cfg, recipe = load_config(f'{where}/own.py'), load_config(repository / 'configs/sfrik/digits_L3.py')
    assert cfg.train_cfg.max_epochs == 7
    assert cfg.model == recipe.model
    assert ('helper' in cfg) == ('parts' in base)
    assert recipes_of(f'{where}/own.py')[0] == 'configs/sfrik/digits_L3.py'


def test_parts_of_the_package_and_other_forms_of_files(folder, repository):
    (folder / 'own.py').write_text("_base_ = ['mmkernel::_base_/runtime.py', 'parts/longer.py']\nx = _base_.helper.a\n")
    assert read_config('own.py').x == 1
    (folder / 'own.json').write_text(json.dumps(dict(_base_=RECIPE)))
    (folder / 'own.yml').write_text(f"_base_: '{RECIPE}'\n")
    for name in ('own.json', 'own.yml', RECIPE):
        assert load_config(name).model == load_config(repository / 'configs/sfrik/digits_L3.py').model


@pytest.mark.parametrize(('base', 'error', 'said'), [
    ('mmkernel::sfrik/digit_L3.py', FileNotFoundError,
     "own.py' has _base_ 'mmkernel::sfrik/digit_L3.py', .*Did you mean 'mmkernel::sfrik/digits_L3.py'"),
    ('mmkernel::digits_vit.py', FileNotFoundError, "Did you mean 'mmkernel::sfrik/digits_vit.py'"),
    ('mmkernel::sfrk/digits_L3.py', FileNotFoundError, "Did you mean 'mmkernel::sfrik/digits_L3.py'"),
    ('mmkernel:sfrik/digits_L3.py', FileNotFoundError, "Did you mean 'mmkernel::sfrik/digits_L3.py'"),
    ('sfrik/digits_L3.py', FileNotFoundError, "Did you mean 'mmkernel::sfrik/digits_L3.py'"),
    ('mmkernel::_base_/runtimes.py', FileNotFoundError, "Did you mean 'mmkernel::_base_/runtime.py'"),
    ('mmkernel::sfrik', FileNotFoundError, "Did you mean 'mmkernel::sfrik/"),
    ('mmkernell::sfrik/digits_L3.py', ConfigError,
     "of a package 'mmkernell', which is not installed. Did you mean 'mmkernel::sfrik/digits_L3.py'"),
    ('mmnothing::x/y.py', ConfigError, "of a package 'mmnothing', which is not installed.$"),
])  # fmt: skip
def test_a_wrong_name_is_answered_with_near_ones(folder, base, error, said):
    (folder / 'own.py').write_text(f'_base_ = {base!r}\n')
    with pytest.raises(error, match=said):
        load_config('own.py')


def test_a_wrong_name_on_the_command_line_too(folder):
    for name in ('mmkernel::sfrik/digit_L3.py', 'configs/sfrik/digit_L3.py', 'sfrik/digit_L3.py'):
        with pytest.raises(FileNotFoundError, match=f"no config '{name}'. Did you mean 'mmkernel::sfrik/digits_L3.py'"):
            load_config(name)


def test_a_key_that_two_bases_have(folder):
    (folder / 'parts/longer.py').write_text('train_cfg = dict(max_epochs=2)\n')
    (folder / 'own.py').write_text(f"_base_ = ['{RECIPE}', 'parts/longer.py']\n")
    with pytest.raises(ConfigError, match="own.py'.*{'train_cfg'}. Give such a key in the config that lists them."):
        load_config('own.py')


def test_dry_run_training_and_resume(folder, capsys):
    """The copy in the work folder, and the config inside a checkpoint, stand alone."""
    (folder / 'own.py').write_text(f"_base_ = ['{RECIPE}', 'parts/longer.py']\n{SMALL}")
    main(['train', 'own.py', '--dry-run'])
    main(['train', 'own.py', '--work-dir', 'run'])
    copy = (folder / 'run/config.py').read_text()
    assert '_base_' not in copy
    (folder / 'own.py').unlink()
    (folder / 'parts/longer.py').unlink()
    assert load_config('run/config.py').model.neck.dims == (16, 16)
    main(['train', 'run/config.py', '--dry-run'])
    main(['train', 'run/config.py', '--work-dir', 'run', '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])
    assert (folder / 'run/epoch_2.pth').is_file()
    main(['export', 'run/epoch_2.pth', '--to', 'safetensors'])
    assert 'written' in capsys.readouterr().out
