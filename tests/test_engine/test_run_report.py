"""The report of a run: made at its end, of what lies in its folder, and never the reason why a run fails."""

import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmkernel.engine import load_config, train
from mmkernel.engine.config_file import recipe_named, recipes_of
from mmkernel.engine.run_report import ReportHook, bands_of, tables_in, write_report
from mmkernel.evaluation import report, save_report
from mmkernel.visualization.curves import reference_curves
from mmkernel.visualization.html_page import MADE_BY

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
REPORT = dict(type='ReportHook', images=40, least_steps=0)


def config(folder, file=CONFIGS / 'sfrik/digits_L3.py', hook=REPORT, **options):
    small = {
        'model.backbone.channels': (4, 4, 4, 8),
        'model.neck.dims': (8, 8),
        'train_dataloader.batch_size': 32,
        'train_dataloader.num_batch_per_epoch': 3,
        'train_cfg.max_epochs': 2,
        'param_scheduler.warmup_epochs': 0,
        'default_hooks.logger.interval': 1,
        **options,
    }
    cfg = load_config(file, small)
    cfg.default_hooks.report = hook
    cfg.work_dir = str(folder)
    return cfg


def log(folder):
    """Without the line breaks of its paragraphs."""
    return ' '.join(word for file in sorted(folder.glob('*/*.log')) for word in file.read_text().split())


def headings(page):
    return re.findall(r'<h2>(.*?)</h2>', page)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A config of the user's own, trained."""
    folder = tmp_path_factory.mktemp('run')
    (folder / 'mine.py').write_text(f"_base_ = {str(CONFIGS / 'sfrik/digits_L3.py')!r}\nlr_scaling = 'sqrt'\n")
    runner = train(config(folder / 'work', folder / 'mine.py'))
    return folder / 'work', runner


def test_a_run_ends_with_its_report(run):
    folder, _ = run
    page = (folder / 'report.html').read_text()
    assert headings(page) == ['Diagnosis', 'Curves', 'Changes', 'Views', 'Embeddings', 'Neighbours', 'Next', 'Config']
    assert (
        '<code>lr_scaling</code></td><td><code>&#x27;linear&#x27;</code></td><td><code>&#x27;sqrt&#x27;</code>' in page
    )
    assert '<code>configs/sfrik/digits_L3.py</code>' in page
    assert 'work_dir</code>' not in page
    assert '2 of 2 epochs, 6 steps' in page
    assert '40 images, width 8' in page
    assert re.search(
        r'Saved .*epoch_2.pth[\s\S]*Report: .*report.html \(\d+ s\)', log(folder)
    )  # after the last checkpoint


def test_the_copy_of_a_config_names_the_recipe(run):
    folder, _ = run
    assert (folder / 'config.py').read_text().startswith('# Recipe: configs/sfrik/digits_L3.py\n')
    assert recipe_named(folder / 'config.py') == 'configs/sfrik/digits_L3.py'
    assert recipes_of(folder / 'config.py') == recipes_of(folder.parent / 'mine.py') == ['configs/sfrik/digits_L3.py']
    assert recipes_of('configs/sfrik/digits_L2_sharded.py') == [
        'configs/sfrik/digits_L2_sharded.py', 'configs/sfrik/digits_L2.py'
    ]  # fmt: skip
    assert recipes_of('configs/_base_/digits_recipe.py') == []


@pytest.mark.parametrize(
    'name', ['../../etc/x.py', 'configs/nowhere.py', 'setup.py', 'configs/sfrik/digits_L3.py extra']
)
def test_a_copy_that_names_anything_else_names_nothing(tmp_path, name):
    (tmp_path / 'config.py').write_text(f'# Recipe: {name}\nraise SystemExit\n')
    assert recipe_named(tmp_path / 'config.py') == ''


def test_training_is_the_same_with_and_without(run, tmp_path):
    _, runner = run
    other = train(config(tmp_path, CONFIGS / 'sfrik/digits_L3.py', hook=None, lr_scaling='sqrt'))
    assert not (tmp_path / 'report.html').exists()
    for (name, mine), theirs in zip(runner.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_short_run_pays_nothing(tmp_path):
    train(config(tmp_path, hook=dict(type='ReportHook', least_steps=7)))
    assert not (tmp_path / 'report.html').exists()


def test_a_failure_is_a_line_in_the_log(tmp_path, monkeypatch):
    def fails(*args, **options):
        raise AttributeError('no such thing')

    monkeypatch.setattr('mmkernel.engine.run_report.write_report', fails)
    train(config(tmp_path))
    assert (tmp_path / 'epoch_2.pth').is_file()
    said = f'No report.html: AttributeError: no such thing (mmkernel plot {tmp_path} --report tries again).'
    assert said in log(tmp_path)


def test_what_cannot_be_shown_is_said_and_nothing_warns(run, tmp_path):
    folder, runner = run
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for model, reason in (
            (None, 'there is no checkpoint yet'),
            (nn.Linear(2, 2), 'Linear has no embeddings'),
            (broken(runner.model), 'embeddings that are not finite'),
        ):
            page = write_report(folder, runner.cfg, model, dict(epoch=1), 20, tmp_path / 'x.html').read_text()
            assert f'Embeddings are not shown: {reason}' in page or reason in page, reason
            assert 'Neighbours' not in headings(page)
            assert 'Curves' in headings(page)


def broken(model):
    class Broken(nn.Module):
        neck = nn.Identity()

        def extract(self, images, stage):
            return model.extract(images, stage) * float('nan')

        def state_dict(self, *args, **options):
            return model.state_dict(*args, **options)

    return Broken()


def test_an_earlier_report_is_replaced_and_a_file_of_others_kept(run, tmp_path):
    folder, runner = run
    path = tmp_path / 'report.html'
    path.write_text('mine')
    for _ in range(2):
        write_report(folder, runner.cfg, None, {}, out=path)
    assert {file.name for file in tmp_path.iterdir()} == {'report.html', 'report.html.old'}
    assert (tmp_path / 'report.html.old').read_text() == 'mine'
    assert MADE_BY in path.read_text()


def test_an_empty_folder_has_a_page_too(tmp_path):
    page = write_report(tmp_path, SimpleNamespace(get=lambda key, *_: None), None, {}).read_text()
    assert headings(page) == ['Diagnosis', 'Curves', 'Next']
    assert 'Has the run started?' in page


def test_tables_of_benchmarks_in_the_folder(tmp_path):
    rows = [dict(name='trained encoder', width=8, scores={20: dict(top1=61.5, top5=90.0)})]
    save_report(tmp_path / 'knn.json', report('knn', rows, 'a.py', 'epoch_2.pth', 0))
    few = {'0.01': dict(mean=50.0, sd=1.0, values=[49.0, 51.0], metric='top1')}
    rows = [dict(name='trained encoder', scores=few)]
    save_report(tmp_path / 'semi.json', report('semi_supervised', rows, 'a.py', None, 0))
    (tmp_path / 'broken.json').write_text('{"rows": [')
    (tmp_path / 'other.json').write_text('[1, 2]')
    (tmp_path / 'damaged.json').write_text(json.dumps(dict(benchmark='knn', rows=[dict(name='x')])))
    (first, knn), (second, semi) = tables_in(tmp_path)
    assert (first, second) == ('knn.json: epoch_2.pth', 'semi.json: no checkpoint')
    assert knn.title == 'knn: top-1/top-5 in percent'
    assert [column.header for column in knn.columns] == ['encoder', 'width', 'k = 20']
    assert list(semi.columns[-1].cells) == ['50.0±1.0']


def test_curves_of_shipped_recipes_say_how_they_were_measured(repository):
    """And each is a band over its whole run."""
    measured = reference_curves()
    assert len(measured['seeds']) == 3
    assert measured['status'] == 'measured by us'
    assert all(measured[word] for word in ('hardware', 'versions', 'settings'))
    assert (
        {f'configs/sfrik/digits_L{order}.py' for order in (1, 2, 3)}
        <= set(measured['recipes'])
        == set(measured['config'])
    )
    for recipe, bands in measured['recipes'].items():
        cfg = load_config(repository / recipe)
        assert {'loss', 'embedding/rank', 'knn/top1'} <= set(bands)
        assert 'waiting' not in bands  # of the machine
        for band in bands.values():
            assert len({len(part) for part in band}) == 1
            assert (band.low <= band.high).all()
            assert (band.low.mean() - 1e-6) <= band.mean.mean() <= (band.high.mean() + 1e-6)
            assert cfg.train_cfg.max_epochs - 1 < band.epochs[-1] <= cfg.train_cfg.max_epochs
    assert (repository / 'mmkernel/visualization/reference_curves.json').stat().st_size < 100_000


def test_the_nearest_recipe_with_curves_gives_the_band():
    (name,) = bands_of('configs/sfrik/digits_L2_sharded.py')
    assert name == 'configs/sfrik/digits_L2.py, 3 seeds'


def test_a_recipe_without_curves_has_no_band():
    assert bands_of('') == bands_of('configs/sfrik/r50_L3_q32768.py') == {}


@pytest.mark.parametrize('options', [dict(images=2), dict(least_steps=-1)])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match='ReportHook'):
        ReportHook(**options)
