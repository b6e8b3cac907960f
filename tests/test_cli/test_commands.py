import json
import shlex
import subprocess
import sys
import types
import warnings
from contextlib import suppress

import pytest
from mmengine.logging import print_log

import mmkernel
from mmkernel.cli import COMMANDS, app, main, terminal


def help_of(capsys, *words):
    with suppress(SystemExit):
        main([*words, '--help'])
    return capsys.readouterr().out


def test_help_is_one_screen_that_lists_every_command(capsys):
    main([])
    text = capsys.readouterr().out
    assert len(text.splitlines()) <= 60
    assert all(f'│ {name.split()[0]} ' in text for name in COMMANDS)
    main(['help', 'kernel', 'show'])
    assert 'Usage: mmkernel kernel show' in capsys.readouterr().out
    main(['--version'])
    assert capsys.readouterr().out == f'mmkernel {mmkernel.__version__}\n'


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_has_examples_that_parse(capsys, name):
    text = help_of(capsys, *name.split())
    for example in COMMANDS[name].examples:
        line = f'mmkernel {name} {example}'.strip()
        assert f'  {line}\n' in text  # whole, on one line: it can be copied
        app().parse_args(shlex.split(line.split(' > ')[0])[1:], exit_on_error=False, print_error=False)


def test_help_imports_no_torch():
    look = 'import sys; from mmkernel.cli import main; main([]); print("torch" in sys.modules)'
    said = subprocess.run([sys.executable, '-c', look], capture_output=True, text=True, check=True).stdout
    assert said.endswith('False\n')


def test_every_shared_word_means_the_same():
    """One type for each word that several commands have: what it takes and what its help says."""
    seen = {}
    for name in COMMANDS:
        for argument in app().parse_commands(name.split())[1][-1].assemble_argument_collection():
            for word in {'--device', '--config', '--cfg-options', '--json', '--license'}.intersection(argument.names):
                seen.setdefault(word, set()).add((argument.parameter.help, str(argument.hint)))
    assert {word for word, found in seen.items() if len(found) == 1} == set(seen), seen


@pytest.mark.parametrize('words, said', [
    (['diagnos'], 'mmkernel: Unknown command "diagnos". Did you mean "diagnose"?'),
    (['kernel', 'shwo'], 'Unknown command "shwo". Did you mean "show"?'),
    (['diagnose'], 'mmkernel diagnose: Command "diagnose" parameter CHECKPOINT requires an argument.'),
    (['diagnose', 'a.pth', '--imges', '3'], 'Unknown option: --imges. Did you mean --images?'),
    (['diagnose', 'a.pth', 'b.pth'], "Unused Tokens: ['b.pth']"),
    (['export', 'a.pth', '--to', 'tim'], 'Invalid value "tim" for --to. Choose from: "safetensors", "timm"'),
])  # fmt: skip
def test_wrong_words_end_with_one_line(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    text = capsys.readouterr().err
    assert said in text
    assert text.count('\n') == 1
    assert '--help explains it' in text


def test_completion_is_installed_where_it_is_told(tmp_path, capsys):
    main(['--install-completion', '--shell', 'bash', '--output', str(tmp_path / 'mmkernel')])
    text = (tmp_path / 'mmkernel').read_text()
    assert all(word in text for word in ('diagnose', '--cfg-options', 'safetensors'))


def test_warnings_are_said_once(capsys, monkeypatch):
    monkeypatch.setattr('mmkernel.cli.diagnose.diagnose', warns)
    main(['diagnose', 'a.pth'])
    assert capsys.readouterr().err == 'warning: mind [this]\n'


def warns(checkpoint: str, /) -> None:
    for _ in range(2):
        warnings.warn('mind [this]', stacklevel=1)
    for module in ('timm.models', 'torch.jit._script'):  # what libraries say of their own future
        warnings.warn_explicit('deprecated', FutureWarning, 'file.py', 1, module)


def test_show(capsys):
    words = ['kernel', 'show', 'LegendreKernel', 'weights=1,40,40', '--width', '64', '--batch', '100']
    main(words)
    text = capsys.readouterr().out
    assert 'positive definite up to l = 8' in text.replace('\n', ' ')
    assert 'V 0.81 ±' in text
    main([*words, '--json'])
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found['coefficients'][:4] == [0, 1, 40, 40]
    assert found['null_mean_v'] == pytest.approx(0.81)


def test_compare(capsys, tmp_path):
    picture = tmp_path / 'kernels.png'
    main(['kernel', 'compare', 'LegendreKernel weights=1,40', '2 * RBFKernel(scale=2)', '--out', str(picture)])
    text = capsys.readouterr().out
    assert '1  LegendreKernel weights=1,40: positive definite' in text
    assert picture.is_file()


def test_fit(capsys):
    main(['kernel', 'fit', 'PolynomialKernel', 'degree=2', '--width', '16', '--max-order', '2', '--json'])
    said = capsys.readouterr()
    assert ' '.join(said.err.split()).count('none: every b_l is 0') == 2  # with either weighting
    fits = json.loads(said.out)['fits']
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
    assert str(stop.value).startswith("mmkernel kernel show: type 'RBF' is not registered")
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
        (['show', 'RBFKernel', '--out', 'no_suffix'], "name it 'no_suffix.png'"),
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


def test_the_last_cyclopts_for_python_3_10_has_no_metavar(monkeypatch, repository):
    monkeypatch.setattr(terminal, '_METAVAR', False)
    assert terminal.Parameter('--a', metavar='PATH', help='a').help == 'a'
    others = [
        p.name for p in (repository / 'mmkernel').rglob('*.py') if 'from cyclopts import Parameter' in p.read_text()
    ]
    assert not others, f'{others}: take Parameter from mmkernel.cli.terminal'


@pytest.mark.parametrize('triton, frozen', [(None, True), ('3.8.1', True), ('3.9.0', False), ('4.0.0+git1', False)])
def test_objects_that_triton_counts_are_freed_at_the_end(monkeypatch, triton, frozen):
    monkeypatch.setitem(sys.modules, 'triton', triton and types.SimpleNamespace(__version__=triton))
    called = []
    monkeypatch.setattr(terminal.gc, 'freeze', lambda: called.append(1))
    terminal.end_quickly()
    assert bool(called) == frozen
