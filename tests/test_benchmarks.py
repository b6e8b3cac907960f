"""The benchmarks run, and their two sides compute the same thing."""

import importlib
import json
import os
import sys
import tarfile
from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[1] / 'benchmarks'
SCRIPTS = ('losses', 'optimizer', 'sinkhorn', 'knn', 'step', 'distributed', 'cifar', 'slices', 'data')
OBJECTIVES = ('SFRIK L=1', 'SFRIK L=2', 'SFRIK L=3', 'AUH', 'NT-Xent', 'VICReg', 'Barlow Twins')


@pytest.fixture(scope='module')
def bench():
    """name -> module of benchmarks/; tools/benchmarks has some of the same names."""
    before = set(sys.modules)
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], '__file__', None) or '/').parent == FOLDER:
            del sys.modules[name]


@pytest.mark.parametrize('name', OBJECTIVES)
@pytest.mark.parametrize('n, q', [(12, 30), (40, 8)])
def test_heads_equal_the_textbook(bench, name, n, q):
    losses = bench('losses')
    textbook, head = losses.OBJECTIVES[name](q)
    z = losses.two_views(n, q, 'cpu').double().requires_grad_()
    # the official sums start from float32 constants in places; here everything is float64
    found = losses.head_loss(head(), z)
    expected = textbook(*z)
    assert abs((found - expected).item()) <= 1e-12 * abs(expected.item())
    gradients = [torch.autograd.grad(loss, z)[0] for loss in (found, expected)]
    assert float((gradients[0] - gradients[1]).abs().max()) <= 1e-11 * float(gradients[1].abs().max())


def test_whitening_assignments_and_neighbours_equal_the_textbook(bench):
    losses, sinkhorn, knn, reference = (bench(name) for name in ('losses', 'sinkhorn', 'knn', 'reference'))
    device, case = torch.device('cpu'), losses.whitening_case(32, 8, 16)
    z = losses.two_views(32, 8, device).double().requires_grad_()
    head = losses.WhiteningHead(sub_batch_size=16)
    head.permutation = lambda rows: losses.permutations(rows, 16)
    values = [losses.head_loss(head, z), reference.wmse(*z, losses.permutations(32, 16))]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in values))
    assert set(case.forms) == {'textbook', 'ours'}
    scores = sinkhorn.scores(40, 6, device)
    torch.testing.assert_close(reference.sinkhorn(scores)[-8:], sinkhorn.sinkhorn(scores, last=8), rtol=1e-4, atol=1e-6)
    size = (400, 100, 8, 4)
    results = {form: list(make(device)().values()) for form, make in knn.case(size, (3, 20)).makers().items()}
    assert max(results['textbook']) < 100  # or equality would say little
    for form, top1 in results.items():
        assert np.allclose(top1, results['textbook'], atol=2 if 'bfloat16' in form else 1e-9), form


def test_optimizers_take_the_same_steps(bench):
    reference, optimizer = bench('reference'), bench('optimizer')
    trained = []
    for kind in (reference.LARSLoop, optimizer.LARS):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), (2, 3, 3, 3))]
        stepper = kind(parameters, lr=0.2, weight_decay=0.1)
        for k in range(3):
            for p in parameters:
                p.grad = torch.sin(p.detach() + k)
            stepper.step()
        trained.append(torch.cat([p.detach().flatten() for p in parameters]))
    torch.testing.assert_close(*trained)


@pytest.mark.parametrize('name', SCRIPTS)
def test_quick_run_writes_what_the_tables_read(bench, tmp_path, capsys, name):
    file = tmp_path / 'results' / f'{name}.json'
    assert bench(name).main(['--quick', '--no-memory', '--device', 'cpu', '--json', str(file)])
    result = json.loads(file.read_text())
    assert result['versions']['torch'] == torch.__version__
    assert result['hardware']
    text = bench('tables').markdown(result)
    columns, lines = bench('tables').lines_of(result)
    assert all(len(line) == len(columns) for line in lines)
    assert text.count('\n|') == len(lines) + 2
    readme = tmp_path / 'README.md'
    readme.write_text((FOLDER / 'README.md').read_text())
    for _ in range(2):
        bench('tables').main(readme, tmp_path / 'results')
    assert readme.read_text().count(f'### {name}') == 1


def test_the_forms_of_a_gpu(bench, tmp_path, monkeypatch, capsys):
    """On a CPU, with the compiler's front alone: every form but the CUDA graphs runs, and what is found is written."""
    losses, gpu, file = bench('losses'), bench('gpu'), tmp_path / 'gpu.json'
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='eager'))
    losses.main(['--gpu', '--quick', '--device', 'cpu', '--json', str(file)])
    rows = json.loads(file.read_text())['rows']
    assert len(rows) == 2
    for row in rows:
        found = row['forms'] | row['compiled']
        assert all(('CUDA graphs' in f.get('error', '')) == name.endswith('graph') for name, f in found.items())
        values = [f['value'] for f in found.values() if 'value' in f]
        assert np.allclose(values, values[0], rtol=0.1)  # bfloat16 at q = 8
        assert row['profiles']['ours, bfloat16']
    assert set(gpu.GOALS) <= set(gpu.cases(losses.OBJECTIVES, None, None, False, torch.device('cpu')))


def test_peak_memory_counts_what_a_step_allocates(bench, capsys):
    harness = bench('harness')
    size = 64 * 2**20
    peak = harness.peak_of(lambda: torch.ones(size, dtype=torch.uint8), torch.device('cpu'))
    assert 0.9 * size <= peak <= 1.5 * size
    sinkhorn = bench('sinkhorn')
    rows = sinkhorn.main(['--quick', '--device', 'cpu'])  # in processes of their own
    assert all(figures['peak_bytes'] is not None for figures in rows[0]['forms'].values())


def test_formulas_of_a_step_on_several_ranks(bench):
    distributed = bench('distributed')
    size = (8, 2048, 32768)
    textbook, ratios = distributed.formula('textbook', None, *size), {}
    for scheme in distributed.SCHEMES:
        ours = distributed.formula(*scheme, *size)
        ratios[scheme] = [textbook[key] / ours[key] for key in ('flops', 'received')]
    assert ratios['rows', 'bfloat16'] == pytest.approx([12, 6])
    assert ratios['columns', 'bfloat16'] == pytest.approx([12, 12])
    plain, sharded = (distributed.layer_formula(scheme, **distributed.WIDE) for scheme in distributed.LAYERS)
    assert sharded['flops'] == plain['flops']
    assert plain['held'] == 8 * sharded['held'] == 3 * 8 * 2**30
    assert plain['received'] > 50 * sharded['received']


def test_plot(bench, tmp_path):
    losses, plot = bench('losses'), bench('plot')
    rows = [
        dict(
            info=case.info,
            forms={form: dict(seconds=1.0 + k, peak_bytes=2**20) for form in ('textbook', 'ours')},
            case=case.name,
        )
        for k, case in enumerate(losses.cases(sweep=True))
    ]
    plot.draw(dict(rows=rows, hardware='none', threads=1), tmp_path / 'cost.png')
    assert (tmp_path / 'cost.png').stat().st_size > 10_000


def test_what_is_written_is_json_without_paths(bench):
    given = dict(
        loss=float('nan'), rows=[(1.0, float('inf'))], text='no /root/a b/c.py:3, 5 GB/s, and/or, --json=/tmp/x.json'
    )
    assert bench('harness').publishable(given) == dict(
        loss=None, rows=[[1.0, None]], text='no a b/c.py:3, 5 GB/s, and/or, --json=x.json'
    )


def test_epochs_of_a_budget(bench):
    """100 seconds for four runs, of which an epoch takes 5 and the rest 4: (23.75 - 4) / 5."""
    first = dict(images_per_second=1000.0, seconds=9.0)
    assert bench('cifar').budget(first, images=5000, methods=4, left=100) == 3
    assert bench('cifar').budget(first, images=5000, methods=4, left=1) == 1


def test_every_method_trains_on_a_pack(bench, tmp_path):
    from mmkernel.engine import check_config

    cifar = bench('cifar')
    args = Namespace(data=tmp_path / 'pack.npz', quick=False, batch=64, workers=2, device='cuda:0')
    for method in cifar.METHODS:
        cfg = cifar.config(method, 3, 8, args, tmp_path)
        check_config(cfg)
        sources = [cfg.train_dataloader.dataset.source, cfg.evaluation.train, cfg.evaluation.test]
        assert [(s.type, s.split) for s in sources] == [('NpzPack', s) for s in ('train', 'train', 'test')]


def test_a_method_that_fails_leaves_the_others(bench, tmp_path, monkeypatch, capsys):
    cifar, file = bench('cifar'), tmp_path / 'cifar.json'

    def run(method, seed, epochs, args, folder):
        if method == 'VICReg':
            raise RuntimeError('no finite loss')
        return dict(
            method=method,
            seed=seed,
            epochs=epochs,
            images_per_second=1.0,
            train_seconds=1.0,
            seconds=2.0,
            knn={'20': 9},
        )

    monkeypatch.setattr(cifar, 'run', run)
    cifar.main(['--epochs', '2', '--seeds', '1', '--device', 'cpu', '--json', str(file)])
    rows = {row['method']: row for row in json.loads(file.read_text())['rows']}
    assert set(rows) == set(cifar.METHODS)
    assert rows.pop('VICReg')['error'] == 'RuntimeError: no finite loss'
    assert not any('error' in row for row in rows.values())


def test_rates_of_a_loader_stand_beside_those_before(bench):
    data = bench('data')
    ms = {
        data.BEFORE: 8.0,
        'ours, worker': 2.0,
        data.DECODING: 1.0,
        'ours, device form': 2.0,
        "lightly's transform": None,
    }
    rows = [
        dict(case='2 x 224', form=form, workers=2, ms=each, skipped='not installed: x') for form, each in ms.items()
    ]
    lines = {line[1]: line[3:] for line in data.lines_of(rows)}
    machine = str(500 * os.cpu_count())
    assert lines['ours, worker'] == ['2', '500', machine, '50%', '4.00', '2.8 hit']
    assert lines['ours, device form'] == ['2', '500', machine, '50%', '4.00', '4.5 miss']
    assert lines["lightly's transform"][0] == 'not installed: x'
    assert lines[data.DECODING][-3] == ''
    without = [row for row in rows if row['form'] != data.BEFORE]
    assert {line[-1] for line in data.lines_of(without)} == {'', '2.8 ?', '4.5 ?'}


def test_encoded_images_come_from_folders_tars_and_packs(bench, tmp_path):
    data = bench('data')
    small, large = data.generated((32, 32), 3), data.generated((80, 70), 2)
    (tmp_path / 'large/a').mkdir(parents=True)
    for i, encoded in enumerate(large):
        (tmp_path / f'large/a/{i}.JPEG').write_bytes(encoded)
    with tarfile.open(tmp_path / 'large.tar', 'w') as pack:
        pack.add(tmp_path / 'large')
    ends = np.cumsum([0, *map(len, small)])
    np.savez(tmp_path / 'small.npz', train_jpeg=np.frombuffer(b''.join(small), np.uint8), train_off=ends)
    for path in ('large', 'large.tar'):
        found = data.images_of([tmp_path / path, tmp_path / 'small.npz'], quick=True)
        assert (sorted(found[0]), found[1]) == (sorted(large), small)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='no JPEG in it; expected a folder or tar'):
        data.images_of([tmp_path / 'empty'], quick=True)


def test_the_device_part_beside_a_step(bench):
    data, view_share = bench('data'), bench('view_share')
    views = data.ours(data.generated((32, 32), 3), 'cifar10_two_views', views_on='device')
    (row,) = view_share.shares({'2 x 32': views}, Namespace(device='cpu', quick=True, rounds=2))
    assert row['views_ms'] > 0 < row['step_ms']
    for views_ms, verdict in ((1.0, ['5.0%', '5% hit']), (2.0, ['10.0%', '5% miss'])):
        assert view_share.line(dict(row, views_ms=views_ms, step_ms=20.0))[-2:] == verdict


@pytest.mark.slow
def test_the_start_of_a_run_on_many_files(bench):
    found = bench('scan').main(['--images', '30000', '--folders', '30', '--names'])
    assert found['second start']['images'] == 30000
    assert found['second start']['peak_mb'] < 100


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.parametrize('how', [('--kills', '4'), ('--minutes', '0.2')])
def test_runs_that_are_hurt(bench, tmp_path, capsys, how):
    file, rows = tmp_path / 'soak.json', bench('soak').main([*how, '--quick', '--json', str(tmp_path / 'soak.json')])
    assert not [row['wrong'] for row in rows if row.get('wrong')]
    result = json.loads(file.read_text())
    assert bench('tables').markdown(result).count('\n|') == len(result['lines']) + 2
    if how[0] == '--kills':
        assert '4 of 4' in capsys.readouterr().out
    else:
        assert result['runs'] >= 1
        assert result['steady']['exit'] == [75]
