import json
import sys

import pytest
from mmengine.logging import print_log

from mmkernel.cli import COMMANDS, main


def test_help_is_pleasant(capsys):
    main([])
    text = capsys.readouterr().out
    assert all(f'  {name}' in text and command.summary in text for name, command in COMMANDS.items())
    main(['--version'])
    assert capsys.readouterr().out.startswith('mmkernel 0.')


def test_unknown_command_names_the_nearest():
    with pytest.raises(SystemExit, match="unknown command 'diagnos'. Did you mean 'diagnose'"):
        main(['diagnos'])


def test_benchmarks_are_reached(capsys, monkeypatch):
    main(['benchmark'])
    text = capsys.readouterr().out
    assert '  knn                Weighted kNN of a checkpoint' in text
    assert 'common' not in text
    assert 'console_errors' not in text
    with pytest.raises(SystemExit, match="no benchmark is called 'linar'. Did you mean 'linear'"):
        main(['benchmark', 'linar'])
    monkeypatch.setattr(sys, 'path', [*sys.path])
    monkeypatch.setattr(sys, 'argv', [*sys.argv])
    with pytest.raises(SystemExit) as stop:
        main(['benchmark', 'knn', '--help'])
    assert stop.value.code == 0
    assert 'usage: knn.py' in capsys.readouterr().out


def test_show(capsys, tmp_path):
    out = tmp_path / 'show.json'
    main(['kernel', 'show', 'LegendreKernel', 'weights=1,40,40', '--width', '64', '--batch', '100', '--json', str(out)])
    text = capsys.readouterr().out
    assert 'positive definite up to l = 8' in text.replace('\n', ' ')
    assert 'V 0.81 ±' in text
    (found,) = json.loads(out.read_text()).values()
    assert found['coefficients'][:4] == [0, 1, 40, 40]
    assert found['null_mean_v'] == pytest.approx(0.81)


def test_compare(capsys, tmp_path):
    picture = tmp_path / 'kernels.png'
    main(['kernel', 'compare', 'LegendreKernel weights=1,40', '2 * RBFKernel(scale=2)', '--plot', str(picture)])
    text = capsys.readouterr().out
    assert '1  LegendreKernel weights=1,40: positive definite' in text
    assert picture.is_file()


def test_fit(capsys, tmp_path):
    out = tmp_path / 'fit.json'
    main(['kernel', 'fit', 'PolynomialKernel', 'degree=2', '--width', '16', '--max-order', '2', '--json', str(out)])
    assert ' '.join(capsys.readouterr().out.split()).count('none: every b_l is 0') == 2  # with either weighting
    fits = json.loads(out.read_text())['fits']
    assert fits[-1]['weights'] == pytest.approx([0, 15 / 16], abs=1e-6)


def test_own_kernel_from_a_file(capsys, tmp_path, monkeypatch):
    (tmp_path / 'my_lab_kernel.py').write_text(
        'from mmkernel.kernels import RBFKernel\nfrom mmkernel.registry import KERNELS\n\n\n'
        '@KERNELS.register_module()\nclass MyLabKernel(RBFKernel):\n    pass\n'
    )
    monkeypatch.chdir(tmp_path)
    main(['kernel', 'show', 'MyLabKernel', 'scale=1', '--imports', 'my_lab_kernel'])
    assert 'MyLabKernel(scale=1.0)' in capsys.readouterr().out


def test_errors_are_one_line(monkeypatch):
    with pytest.raises(SystemExit) as stop:
        main(['kernel', 'show', 'RBF'])
    assert str(stop.value).startswith("mmkernel kernel: type 'RBF' is not registered")
    assert '\n' not in str(stop.value)
    monkeypatch.setenv('MMKERNEL_TRACEBACK', '1')
    with pytest.raises(KeyError):
        main(['kernel', 'show', 'RBF'])


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        (['show', 'SumKernel'], "It takes: kernels. Expected 'TYPE key=value ...'"),
        (['show', 'RBFKernel', '--order', '-1'], 'order=-1; expected one or more'),
        (
            ['show', 'RBFKernel', '--imports', 'no_such_module_of_mine'],
            'Failed to import no_such_module_of_mine. Modules are looked for in',
        ),
        (['show', 'RBFKernel', '--plot', 'no_suffix'], "name it 'no_suffix.png'"),
        (['show', 'RBFKernel', '--width', '1'], 'q >= 2, got q = 1'),
        (['show', 'RBFKernel', '--batch', '1'], 'N >= 2 points, got count = 1'),
        (['fit', 'RBFKernel', '--max-order', '0'], '--max-order 0: a LegendreKernel has order >= 1'),
    ],
)
def test_every_wrong_argument_ends_with_one_line(argv, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(['kernel', *argv])
    assert said in str(stop.value)
    assert '\n' not in str(stop.value)


def test_large_numbers_are_no_infinity_and_a_corner_is(capsys):
    main(['kernel', 'show', 'LegendreKernel', 'weights=1e6'])
    assert 'inf' not in capsys.readouterr().out
    main(['kernel', 'show', 'RieszKernel'])
    assert 'inf' in capsys.readouterr().out


def test_train_is_that_of_the_tools(capsys):
    with pytest.raises(SystemExit, match="There is no config 'nowhere.py'"):
        main(['train', 'nowhere.py'])
    main(['train', '--help'])
    assert '--cfg-options' in capsys.readouterr().out


@pytest.mark.parametrize(
    'options, said',
    [
        (['default_hooks.momentum=None'], 'which exactly one hook must move'),
        (["optim_wrapper.paramwise_cfg={'custom_keys': {'nothing': {'lr_mult': 0.1}}}"], 'nothing'),
        (["optim_wrapper={'_delete_': True, 'type': 'OptimWrapper', 'optimizer': {'type': 'SGD', 'lr': 0.1}}",
          'train_cfg.virtual_batch=256'], "has no keyword 'backward'"),
    ],
)  # fmt: skip
def test_train_refuses_a_config_in_one_line(options, said, repository, tmp_path):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                'train',
                str(repository / 'configs/byol/digits.py'),
                '--work-dir',
                str(tmp_path),
                '--cfg-options',
                *options,
            ]
        )
    assert str(stop.value).startswith('ConfigError: ')
    assert said in str(stop.value)
    assert '\n' not in str(stop.value)
    print_log('the log file is gone, the log goes on', 'current')
