import json
from pathlib import Path

import pytest
from test_diagnose_command import make_checkpoint

from mmkernel.cli import main
from mmkernel.cli.plot import folders_of, named_recipe


def make_run(folder, loss=1.0, recipe='', starts=(range(1, 7),), **more):
    """A work folder of epochs of two steps; ``starts``: the steps that each start logged."""
    for number, steps in enumerate(starts):
        file = folder / f'2026010{number}_000000' / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        lines = [dict(step=n, epoch=(n + 1) // 2, loss=loss / n + number, waiting=5.0, **more) for n in steps]
        file.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    (folder / 'config.py').write_text(f'# Recipe: {recipe}\n' if recipe else '')
    return folder


def test_runs_over_one_another(tmp_path, capsys):
    first, second = make_run(tmp_path / 'first'), make_run(tmp_path / 'second', 2.0, starts=(range(1, 6), range(4, 7)))
    out = tmp_path / 'new' / 'curves.png'
    main(['plot', str(first), f'again={second}', '--out', str(out), '--json'])
    text = capsys.readouterr()
    found = json.loads(text.out)
    assert found['runs']['first']['scalars']['loss']['values'] == pytest.approx([1 / n for n in range(1, 7)])
    again = found['runs']['again']['scalars']
    assert again['loss']['steps'] == [1, 2, 3, 4, 5, 6]
    assert again['loss']['values'] == pytest.approx([2, 1, 2 / 3, 1.5, 1.4, 4 / 3])  # what was done again counts once
    assert again['waiting']['epochs'] == [0.5, 1, 1.5, 2, 2.5, 3]
    assert found['bands'] == {}
    assert out.stat().st_size > 10_000
    assert f'written: {out}' in ' '.join(text.err.split())


@pytest.mark.parametrize(
    'suffix, start', [('png', b'\x89PNG'), ('pdf', b'%PDF'), ('svg', b'<?xml'), ('html', b'<!doctype html>')]
)
def test_every_kind_of_file_and_an_earlier_one_is_kept(tmp_path, suffix, start):
    out = tmp_path / f'x.{suffix}'
    out.write_text('earlier')
    main(['plot', str(make_run(tmp_path / 'run')), '--out', str(out)])
    assert out.read_bytes().startswith(start)
    assert (tmp_path / f'x.{suffix}.old').read_text() == 'earlier'


def test_a_page_of_curves_needs_nothing_beside_it(tmp_path):
    out = tmp_path / 'x.html'
    main(['plot', str(make_run(tmp_path / 'run')), '--keys', 'loss', '--out', str(out)])
    text = out.read_text()
    assert '<img alt="curves of run: loss" src="data:image/svg+xml;base64,' in text
    assert '<td>loss</td>' in text
    assert 'src="http' not in text


def test_one_run_keeps_its_curves_in_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(['plot', str(make_run(tmp_path / 'a'))])
    main(['plot', 'a', str(make_run(tmp_path / 'b'))])
    assert (tmp_path / 'a/curves.png').is_file()
    assert (tmp_path / 'curves.png').is_file()
    assert 'loss' in capsys.readouterr().out


def test_values_that_are_not_finite_are_null(tmp_path, capsys):
    folder = make_run(tmp_path / 'run', kernel=float('nan'))
    main(['plot', str(folder), '--json'])
    assert json.loads(capsys.readouterr().out)['runs']['run']['scalars']['kernel']['values'] == [None] * 6


def test_labels(tmp_path):
    for name in ('x/run', 'y/run', 'a=b', 'seeds/0'):
        (tmp_path / name).mkdir(parents=True)
    x, y, odd = (str(tmp_path / name) for name in ('x/run', 'y/run', 'a=b'))
    assert list(folders_of([x, y])) == ['x/run', 'y/run']
    assert list(folders_of([x, f'mine={y}'])) == ['run', 'mine']
    assert folders_of([odd]) == {'a=b': Path(odd)}
    assert list(folders_of([str(tmp_path / 'seeds/0')])) == ['seeds/0']
    with pytest.raises(ValueError, match="two runs are called 'm': give them labels"):
        folders_of([f'm={x}', f'm={y}'])


def test_names_of_recipes(repository):
    for name in (
        'configs/kernels/digits_rbf.py',
        'kernels/digits_rbf',
        str(repository / 'configs/kernels/digits_rbf.py'),
    ):
        assert named_recipe(name) == 'configs/kernels/digits_rbf.py'
    assert named_recipe(None) == ''


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['nowhere'], "there is no folder 'nowhere'; expected the work folder of a run, or label=FOLDER"),
        (['label=nowhere'], "there is no folder 'nowhere'"),
        (['empty'], 'Has the run started?'),
        (['run', '--keys', 'los'], "run: no scalar 'los'; there is loss, waiting"),
        (['run', '--out', 'x.gif'], "--out 'x.gif' ends in none of .png, .pdf, .svg, .html"),
        (['run', '--recipe', 'nothing'], "--recipe 'nothing' is not a recipe of the package"),
        (['run', '--report'], "'run' holds no checkpoint of a run (epoch_N.pth) to report on"),
        (['run', '--report', '--out', 'x.png'], 'a report is one .html file'),
        (['run', 'empty', '--report'], '--report is of one run'),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / 'run')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(SystemExit) as stop:
        main(['plot', *words])
    assert said in str(stop.value)
    assert '\n' not in str(stop.value)
    assert not list(tmp_path.glob('*.*'))  # nothing is written


def test_a_report_afterwards(repository, tmp_path):
    folder = make_run(tmp_path / 'run')
    make_checkpoint(repository, folder / 'epoch_1.pth', run='r', steps_per_epoch=11, optimizer='SGD')
    main(['plot', str(folder), '--report', '--images', '30', '--recipe', 'sfrik/digits_L3'])
    page = (folder / 'report.html').read_text()
    assert '30 images, width 16' in page
    assert '<code>model.neck.dims</code>' in page  # smaller than the recipe's
