import json

import pytest

from mmkernel.visualization import loss_curves, read_scalars


def write(folder, name, records, tail=''):
    file = folder / name / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text(''.join(json.dumps(record) + '\n' for record in records) + tail)


def test_scalars_of_a_run_that_was_resumed_and_still_goes_on(tmp_path):
    write(tmp_path, '20260102_000000', [dict(step=2, loss=0.5)], tail='{"step": 3, "lo')
    write(tmp_path, '20260101_000000', [dict(step=1, loss=1.0)])
    assert [record['step'] for record in read_scalars(tmp_path)] == [1, 2]


def test_one_line_per_run_and_one_panel_per_key(tmp_path):
    write(tmp_path / 'a', 'now', [dict(step=1, loss=1.0, kernel=3.0), dict(step=2, loss=0.5, kernel=2.0), dict(lr=1)])
    runs = {'L = 1': tmp_path / 'a', 'L = 3': [dict(step=1, loss=4.0, kernel=4.0)]}
    figure = loss_curves(runs, ('loss', 'kernel'), path=tmp_path / 'plots' / 'loss.png')
    left, right = figure.axes
    assert [line.get_label() for line in left.get_lines()] == ['L = 1', 'L = 3']
    assert left.get_lines()[0].get_ydata().tolist() == [1.0, 0.5]
    assert right.get_lines()[0].get_ydata().tolist() == [3.0, 2.0]
    assert right.get_title(loc='left') == 'kernel'
    assert (tmp_path / 'plots' / 'loss.png').stat().st_size > 1000


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match='Has the run started'):
        read_scalars(tmp_path)
    with pytest.raises(KeyError, match="no scalar 'los'; it has loss, step"):
        loss_curves({'a': [dict(step=1, loss=2.0)]}, ('los',))
