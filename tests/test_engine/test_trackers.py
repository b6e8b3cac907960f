"""TensorBoard, W&B and trackio by one option each: what a run logs arrives, a resumed run goes on, weights stay the same."""

import json
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from test_monitors import WATCHERS, config, digest

from mmkernel.engine import ConfigError, Runner, load_config, set_option, train
from mmkernel.engine.logs import build_visualizer

OFFLINE = dict(WANDB_MODE='offline', WANDB_SILENT='true')


def tracked(folder, kind, epochs=1, **options):
    cfg = config(folder, watchers=dict(knn=WATCHERS['knn']), **{'train_cfg.max_epochs': epochs})
    set_option(cfg, 'visualizer.vis_backends.mine.type', kind)
    for name, value in options.items():
        set_option(cfg, f'visualizer.vis_backends.mine.{name}', value)
    return cfg


def logged(folder):
    """Of each row of scalars.json its step, and the names and values of the losses and the accuracy."""
    rows = [json.loads(line) for file in sorted(folder.glob('*/vis_data/scalars.json')) for line in file.open()]
    return {(row['step'], name): row[name] for row in rows for name in ('loss', 'knn/top1') if name in row}


def test_a_backend_by_name_joins_the_others_or_leaves(tmp_path):
    path = tmp_path / 'child.py'
    base = Path(__file__).parents[2] / 'configs/sfrik/digits_L2.py'
    line = "visualizer = dict(vis_backends=dict(tensorboard=dict(type='TensorboardVisBackend'), table=None))"
    path.write_text(f'_base_ = {str(base)!r}\n{line}\n')
    cfg = load_config(path)
    assert list(cfg.visualizer.vis_backends) == ['local', 'table', 'tensorboard']
    built = build_visualizer(cfg.visualizer, 'test_by_name', str(tmp_path / 'logs'))
    assert list(built._vis_backends) == ['LocalVisBackend', 'TensorboardVisBackend']


def test_tensorboard_holds_every_scalar(tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(tracked(tmp_path, 'TensorboardVisBackend'))
    (file,) = tmp_path.glob('*/vis_data/events.out.tfevents.*')
    events = EventAccumulator(str(file)).Reload()
    found = {(event.step, name): event.value for name in ('loss', 'knn/top1') for event in events.Scalars(name)}
    assert found == pytest.approx(logged(tmp_path))
    assert len(found) == 6


def records(content):
    """Those of a file of W&B: after a head of 7 bytes, blocks as LevelDB's log has them."""
    place, whole = 7, b''
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # what is left of a block has no room for a head
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from('<HB', content, place + 4)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b''


def wandb_rows(folder):
    """{run id: [row]} of the files that W&B keeps offline, and the items of the configs in them."""
    from wandb.proto import wandb_internal_pb2 as pb

    rows, configs = {}, []
    for file in sorted(folder.glob('*/vis_data/wandb/offline-run-*/run-*.wandb')):
        found = rows.setdefault(file.stem.removeprefix('run-'), [])
        for data in records(file.read_bytes()):
            record = pb.Record()
            record.ParseFromString(data)
            configs += [*record.run.config.update, *record.config.update]
            if items := record.history.item:
                found.append({item.key or '.'.join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows, configs


def test_wandb_offline_and_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    train(tracked(tmp_path, 'WandbBackend', project='digits'))
    runner = train(tracked(tmp_path, 'WandbBackend', epochs=2, project='digits'), resume=True)
    rows, configs = wandb_rows(tmp_path)
    assert list(rows) == [runner.folder.run]  # one run, though two files
    found = {
        (row['step'], name): row[name]
        for row in rows[runner.folder.run]
        for name in ('loss', 'knn/top1')
        if name in row
    }
    assert found == pytest.approx(logged(tmp_path))
    assert len(found) == 12
    assert any(item.key == 'model' and 'KernelMMDHead' in item.value_json for item in configs)


def test_a_failed_run_closes_its_tracker(tmp_path, monkeypatch):
    """Else the next run of this process would write into it."""
    wandb = pytest.importorskip('wandb')
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'model.bad_iteration': 2})
    cfg.work_dir, cfg.visualizer = str(tmp_path), dict(vis_backends=dict(wandb=dict(type='WandbBackend')))
    runner = Runner.from_cfg(cfg)
    assert wandb.run.id == runner.folder.run
    with pytest.raises(RuntimeError, match='nan'):
        runner.train()
    assert wandb.run is None


def test_trackio_and_a_resumed_run_goes_on(tmp_path, monkeypatch):
    pytest.importorskip('trackio')
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from test_trackers import Path, tracked, train
for epochs in (1, 2):
    run = train(tracked(Path({str(tmp_path / 'run')!r}), 'TrackioBackend', epochs, project='digits'), resume=epochs > 1)
print(run.folder.run)
"""
    monkeypatch.setenv('TRACKIO_DIR', str(tmp_path / 'kept'))  # read when trackio is imported
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with sqlite3.connect(tmp_path / 'kept/digits.db') as base:
        rows = base.execute('select run_name, step, metrics from metrics').fetchall()
    assert {name for name, _, _ in rows} == {f'digits_L3-{done.stdout.split()[-1][:8]}'}
    found = {(step, name): json.loads(text)[name] for _, step, text in rows for name in ('loss', 'knn/top1')
             if name in json.loads(text)}  # fmt: skip
    assert found == pytest.approx(logged(tmp_path / 'run'))
    assert len(found) == 12


@pytest.mark.parametrize('kind, library', [('WandbBackend', 'wandb'), ('TrackioBackend', 'trackio')])
def test_a_missing_library_is_named_with_the_command_to_install_it(tmp_path, monkeypatch, kind, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=f'visualizer.*{kind} needs {library}, .*: pip install {library}'):
        Runner.from_cfg(tracked(tmp_path / 'run', kind))
    assert not (tmp_path / 'run').exists()  # nothing is left of a run that did not begin


def test_weights_are_the_same_with_and_without(tmp_path, monkeypatch):
    pytest.importorskip('wandb')
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    plain = train(config(tmp_path / 'a', watchers={}, **{'train_cfg.max_epochs': 1}))
    assert digest(train(tracked(tmp_path / 'b', 'WandbBackend')).model) == digest(plain.model)
