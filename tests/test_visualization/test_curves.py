import json

import numpy as np
import pytest

from mmkernel.visualization import curves_of, read_scalars, run_curves
from mmkernel.visualization.curves import Band, band_over, panels_of


def write(folder, name, records, tail=''):
    file = folder / name / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records) + tail)


def step(n, **values):
    """A record of epochs of 10 steps."""
    return dict(step=n, iter=n, epoch=-(-n // 10), **values)


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def titles(figure):
    return [axes.get_title(loc='left') for axes in figure.axes]


def test_scalars_of_a_run_that_was_resumed_and_still_goes_on(tmp_path):
    write(tmp_path, '20260102_000000', [step(2, loss=0.5)], tail='{"step": 3, "lo')
    write(tmp_path, '20260101_000000', [step(1, loss=1.0)])
    assert [record['step'] for record in read_scalars(tmp_path)] == [1, 2]


def test_what_a_resume_did_again_is_counted_once(tmp_path):
    """Killed after step 25, resumed from the checkpoint of step 10, then from that of step 20; of the second start nothing else."""
    write(tmp_path, '20260101_000000', [step(n, loss=1.0) for n in (5, 10, 15, 20, 25)])
    write(tmp_path, '20260102_000000', [step(n, loss=2.0) for n in (15, 20)])
    write(tmp_path, '20260103_000000', [step(n, loss=3.0) for n in (25, 30)])
    curve = curves_of(tmp_path)['loss']
    assert curve.steps.tolist() == [5, 10, 15, 20, 25, 30]
    assert curve.values.tolist() == [1, 1, 2, 2, 3, 3]
    assert curve.epochs.tolist() == [0.5, 1, 1.5, 2, 2.5, 3]


def test_a_run_that_began_anew_has_no_past(tmp_path):
    write(tmp_path, '20260101_000000', [step(5, loss=1.0), step(10, loss=1.0)])
    write(tmp_path, '20260102_000000', [step(5, loss=2.0)])
    assert curves_of(tmp_path)['loss'].values.tolist() == [2]


def test_one_line_per_run_and_one_panel_per_key(tmp_path):
    write(tmp_path / 'a', 'now', [step(1, loss=1.0, kernel=3.0), step(2, loss=0.5, kernel=2.0), dict(lr=1)])
    runs = {'L = 1': tmp_path / 'a', 'L = 3': [step(1, loss=4.0, kernel=4.0)]}
    figure = run_curves(runs, ('loss', 'kernel'), path=tmp_path / 'plots' / 'loss.png')
    left, right = figure.axes
    assert [line.get_label() for line in left.get_lines()] == labels(figure) == ['L = 1', 'L = 3']
    assert left.get_lines()[0].get_ydata().tolist() == [1.0, 0.5]
    assert right.get_lines()[0].get_ydata().tolist() == [3.0, 2.0]
    assert right.get_title(loc='left') == 'kernel'
    assert (tmp_path / 'plots' / 'loss.png').stat().st_size > 1000


def test_panels_are_the_quantities_that_were_measured():
    first = [
        step(
            5,
            loss=1.0,
            loss_alignment=2.0,
            alignment=1.0,
            loss_other=3.0,
            lr=0.1,
            time=1,
            data_time=1,
            memory=4,
            waiting=9,
        ),
        dict(step=10, epoch=1, **{'knn/top1': 50.0, 'knn/top5': 90.0}),
    ]
    second = [step(5, loss=1.0, **{'embedding/rank': 7.0})]
    assert panels_of(map(curves_of, (first, second))) == [
        'loss', 'alignment', 'loss_other', 'embedding/rank', 'knn/top1', 'waiting'
    ]  # fmt: skip
    figure = run_curves({'a': first, 'b': second})
    assert titles(figure)[3:] == [
        'effective rank of the embeddings',
        'kNN accuracy, %',
        'time spent waiting for data, %',
    ]
    assert [line.get_label() for line in figure.axes[3].get_lines()] == ['b']  # a has no such quantity
    colours = [line.get_color() for line in (*figure.axes[0].get_lines(), *figure.axes[3].get_lines())]
    assert colours[1] == colours[2] != colours[0]


def test_the_band_is_mean_and_range_over_seeds():
    seeds = [curves_of([step(n, loss=seed * n) for n in (5, 10, 15, 20)]) for seed in (1.0, 2.0, 6.0)]
    band = band_over(seeds, 'loss')
    assert band.epochs.tolist() == [0.75, 1.75]
    assert band.mean.tolist() == [3 * 7.5, 3 * 17.5]
    assert band.low.tolist() == [7.5, 17.5]
    assert band.high.tolist() == [45, 105]
    with pytest.raises(ValueError, match="did not log 'loss' at the same epochs"):
        band_over([seeds[0], curves_of([step(5, loss=1.0)])], 'loss')


def test_a_band_lies_behind_the_lines():
    band = Band(*(np.array(part) for part in ([1.0, 2.0], [3.0, 2.0], [2.0, 1.0], [4.0, 3.0])))
    figure = run_curves({'mine': [step(10, loss=1.0)]}, bands={'recipe, 3 seeds': {'loss': band, 'kernel': band}})
    (axes,) = figure.axes  # the run has no 'kernel'
    (area,) = axes.collections
    corners = area.get_paths()[0].vertices
    assert corners[:, 1].min() == 1
    assert corners[:, 1].max() == 4
    assert area.get_zorder() < axes.get_lines()[0].get_zorder()
    assert labels(figure) == ['mine', 'recipe, 3 seeds']


def test_the_legend_hides_no_data():
    figure = run_curves({f'run {i}': [step(n, loss=float(n)) for n in (5, 10)] for i in range(7)})
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0
    assert legend.x1 <= figure.bbox.x1
    for axes in figure.axes:
        assert not legend.overlaps(axes.get_tightbbox())


def test_values_that_are_not_finite_leave_a_gap():
    figure = run_curves(
        {'a': [step(5, loss=1.0), step(10, loss=float('nan')), step(15, loss=float('inf')), step(20, loss=1e4)]}
    )
    figure.draw_without_rendering()
    assert figure.axes[0].get_yscale() == 'log'


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='Has the run started'):
        read_scalars(tmp_path)
    with pytest.raises(KeyError, match="a: no scalar 'los'; there is loss"):
        run_curves({'a': [step(1, loss=2.0)]}, ('los',))
    with pytest.raises(ValueError, match='a: nothing is logged yet'):
        run_curves({'a': []})
