"""Monitors see what the head sees, write it everywhere, and change nothing: not a weight, not a resumed run."""

import csv
import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from multiprocess import run_processes
from PIL import Image
from torch import nn

from mmkernel.datasets import Digits, Source
from mmkernel.engine import load_config, read_checkpoint, train
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.label_monitors import KNNMonitorHook, OnlineProbeHook
from mmkernel.engine.monitors import ViewSheetHook, look_alone, measurable
from mmkernel.evaluation import embedding_statistics
from mmkernel.kernels import LegendreKernel
from mmkernel.registry import DATASETS, HOOKS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
WATCHERS = {
    'monitor': dict(type='EmbeddingMonitorHook', interval=2),
    'sheet': dict(type='ViewSheetHook'),
    'knn': dict(type='KNNMonitorHook', max_images=60),
    'probe': dict(type='OnlineProbeHook', max_images=60),
    'best': dict(type='KeepBestHook', criterion='rank', images=40),
    'nearest': dict(type='KeepBestHook', criterion='alignment', images=40),
}


def config(folder, method='sfrik/digits_L3', watchers=WATCHERS, **options):
    small = {
        'model.backbone.channels': (4, 4, 4, 8),
        'model.neck.dims': (8, 8),
        'train_dataloader.batch_size': 32,
        'train_dataloader.num_batch_per_epoch': 5,
        'train_cfg.max_epochs': 3,
        'param_scheduler.warmup_epochs': 0,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep': 3,
        'default_hooks.logger.interval': 1,
        'log_level': 'ERROR',
        **options,
    }
    cfg = load_config(CONFIGS / f'{method}.py', small)
    for name in ('monitor', 'sheet', 'knn'):
        cfg.default_hooks.pop(name, None)
    cfg.default_hooks.update(watchers)
    cfg.work_dir = str(folder)
    return cfg


def digest(model):
    md5 = hashlib.md5()
    for key, value in sorted(model.state_dict().items()):
        md5.update(key.encode() + value.contiguous().numpy().tobytes())
    return md5.hexdigest()


def records(folder):
    lines = next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope='module')
def watched(tmp_path_factory):
    folder = tmp_path_factory.mktemp('watched')
    return folder, train(config(folder))


def test_weights_are_the_same_with_and_without(watched, tmp_path):
    assert digest(train(config(tmp_path, watchers={})).model) == digest(watched[1].model)


def test_a_watched_run_resumes_bit_for_bit(watched, tmp_path):
    train(config(tmp_path))
    for name in ('epoch_2.pth', 'epoch_3.pth', 'best_rank.pth'):
        (tmp_path / name).unlink(missing_ok=True)
    resumed = train(config(tmp_path), resume=True)
    assert digest(resumed.model) == digest(watched[1].model)
    for key in ('online_probe', 'message_hub'):
        a, b = (read_checkpoint(folder / 'epoch_3.pth')[key] for folder in (watched[0], tmp_path))
        if key == 'online_probe':
            assert torch.equal(a['probe']['1.weight'], b['probe']['1.weight'])
            assert a['probe']['1.weight'].abs().sum() > 0
        else:
            scores = [state['log_scalars']['monitor/knn/top1']['values'] for state in (a, b)]
            assert torch.equal(*scores)
            assert len(scores[0]) == 3
    bests = [sorted(p.name for p in folder.glob('*.pth')) for folder in (watched[0], tmp_path)]
    assert set(bests[1]) <= set(bests[0])


def test_everything_stands_in_every_log(watched):
    folder, _ = watched
    written = records(folder)
    words = {'std', 'rank', 'rankme', 'top_share', 'uniformity', 'mmd2_sd', 'mmd2_score'}
    last = [r for r in written if 'loss' in r][-1]
    assert {f'embedding/{word}' for word in words} | {'alignment', 'mmd2'} <= set(last)
    for record in written:  # no word stands twice on a line, with two values
        names = [name.rsplit('/')[-1] for name in record if name.startswith('embedding/') or '/' not in name]
        assert len(set(names)) == len(names)
    assert 1 <= last['embedding/rank'] <= 8
    ends = [r for r in written if 'knn/top1' in r]
    assert [r['epoch'] for r in ends] == [1, 2, 3]
    assert [r['step'] for r in ends] == [5, 10, 15]
    assert all(0 <= r['knn/top1'] <= r['knn/top5'] <= 100 for r in ends)
    assert len([r for r in written if 'probe/top1' in r]) == len([r for r in written if 'keep_best/rank' in r]) == 3
    with next(folder.glob('*/vis_data/scalars.csv')).open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(written)
    assert float(table[-1]['step']) == written[-1]['step']
    assert [row['knn/top1'] for row in table if row['knn/top1']] == [str(r['knn/top1']) for r in ends]


def test_the_monitor_sees_the_embeddings_that_the_head_is_given(tmp_path, monkeypatch):
    """In train mode, of the first view, at the iterations it says, and under the run's kernel."""
    cfg = config(tmp_path, watchers=dict(monitor=WATCHERS['monitor']), **{'train_cfg.max_epochs': 1})
    seen = []

    def keep(z, partner, kernel, rows):
        seen.append((z.clone(), partner.clone(), kernel))
        return embedding_statistics(z, partner, kernel, rows)

    monkeypatch.setattr('mmkernel.engine.monitors.embedding_statistics', keep)
    runner = train(cfg)
    assert len(seen) == 2  # batches 2 and 4 of 5
    z, partner, kernel = seen[0]
    assert z.shape == partner.shape == (32, 8)
    assert not z.requires_grad
    assert kernel is runner.model.head.kernel
    assert runner.model.observers == []
    history = runner.message_hub.get_scalar('train/embedding/rank').data[0]
    assert history.tolist() == [embedding_statistics(z, p, k)['rank'] for z, p, k in seen]


@pytest.mark.parametrize('interval, looks', [(1, 5), (2, 2), (4, 1), (5, 1), (50, 1)])
def test_an_epoch_shorter_than_the_interval_gets_one_look(tmp_path, interval, looks):
    watchers = dict(monitor=dict(type='EmbeddingMonitorHook', interval=interval))
    runner = train(config(tmp_path, watchers=watchers, **{'train_cfg.max_epochs': 1}))
    assert len(runner.message_hub.get_scalar('train/embedding/rank').data[0]) == looks


@pytest.mark.parametrize('method', ['moco/digits_v2', 'deepcluster/digits_v2', 'vicreg/digits'])
def test_objectives_of_other_shapes(method, tmp_path):
    """One online view and a target; views of several heads; no kernel: the yardstick of the paper."""
    options = {'train_cfg.max_epochs': 1}
    if 'deepcluster' in method:
        options['model.head.num_clusters'] = (6,)
    runner = train(config(tmp_path, method, dict(monitor=WATCHERS['monitor']), **options))
    assert runner.message_hub.get_scalar('train/embedding/alignment').current() > 0
    monitor = next(hook for hook in runner.hooks if type(hook).__name__ == 'EmbeddingMonitorHook')
    assert monitor.kernel.weights == LegendreKernel((1.0, 40.0, 40.0)).weights


def test_with_a_virtual_batch(tmp_path):
    """The union of its micro-batches is one cloud; the probe sees the first of them."""
    watchers = {name: WATCHERS[name] for name in ('monitor', 'probe')}
    options = {'train_cfg.virtual_batch': 64, 'train_cfg.max_epochs': 1}
    runner = train(config(tmp_path, watchers=watchers, **options))
    assert runner.message_hub.get_scalar('train/embedding/rank').current() > 1
    assert runner.message_hub.get_scalar('monitor/probe/top1').current() >= 0


def test_without_labels_the_label_monitors_say_so_and_stand_aside(tmp_path, monkeypatch):
    watchers = {name: WATCHERS[name] for name in ('knn', 'probe', 'monitor')}
    cfg = config(tmp_path, watchers=watchers, **{'train_cfg.max_epochs': 1})
    cfg.evaluation.pop('test')
    lines = []
    monkeypatch.setattr('logging.Logger.info', lambda self, text, *args: lines.append(text % args if args else text))
    runner = train(cfg)
    said = [line for line in lines if isinstance(line, str) and ' is off: ' in line]
    assert any('KNNMonitorHook is off: the config has no evaluation.test' in line for line in said)
    assert any('OnlineProbeHook is off' in line for line in said)
    assert runner.message_hub.get_scalar('train/embedding/rank').current() > 1


@DATASETS.register_module()
class OtherNames(Source):
    """The digits under the names given."""

    def __init__(self, names, shift=0):
        super().__init__()
        self.source, self.classes = Digits('test'), list(names)
        self.labels = (self.source.labels + shift) % 10

    def read(self, i):
        return self.source.read(i)

    def name(self, i):
        return f'digit {i}'


def test_label_monitors_count_by_the_names_of_classes(tmp_path, monkeypatch):
    watchers, said, figures = {name: WATCHERS[name] for name in ('knn', 'probe')}, [], []
    monkeypatch.setattr('logging.Logger.warning', lambda self, text, *args: said.append(str(text)))
    for names, shift in (('0123456789', 0), ('9012345678', 1), ('abcdefghij', 0)):
        cfg = config(tmp_path / f'{names}', watchers=watchers, **{'train_cfg.max_epochs': 1})
        cfg.evaluation.test = dict(type='OtherNames', names=names, shift=shift)
        logged = train(cfg).message_hub.log_scalars
        figures.append([logged[k].current() for k in ('monitor/knn/top1', 'monitor/probe/top1') if k in logged])
    assert figures[0] == figures[1] != []
    assert figures[2] == []
    for hook in ('KNNMonitorHook', 'OnlineProbeHook'):
        assert any(f'{hook} is off: ' in line and '0, 1, 2' in line and 'a, b, c' in line for line in said)


@pytest.mark.parametrize(
    'hook, message',
    [
        (dict(type='EmbeddingMonitorHook', interval=0), 'interval=0'),
        (dict(type='KNNMonitorHook', interval=0), 'KNNMonitorHook.interval=0'),
        (dict(type='OnlineProbeHook', max_images=1), 'max_images=1'),
        (dict(type='KeepBestHook', criterion='loss'), "one of rank, .* got 'loss'"),
        (dict(type='KeepBestHook', images=1), 'images=1'),
    ],
)
def test_bad_arguments(tmp_path, hook, message):
    with pytest.raises(ValueError, match=message):
        train(config(tmp_path, watchers=dict(watch=hook)))


def test_the_best_file_is_a_checkpoint_that_resuming_never_takes(watched):
    folder, runner = watched
    best = runner.message_hub.get_info('best_rank')
    checkpoint = read_checkpoint(folder / 'best_rank.pth')
    assert checkpoint['meta']['epoch'] == best['epoch']
    assert sorted(p.name for p in folder.glob('epoch_*.pth')) == ['epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth']
    scores = [r['keep_best/rank'] for r in records(folder) if 'keep_best/rank' in r]
    assert (
        min(r['keep_best/alignment'] for r in records(folder) if 'keep_best/alignment' in r) > 0
    )  # the distance itself
    assert best['score'] == max(scores)
    assert best['epoch'] == scores.index(max(scores)) + 1


def test_equal_scores_keep_the_first_and_nan_never_counts(tmp_path, monkeypatch):
    scores = {1: float('nan'), 2: 5.0, 3: 5.0, 4: float('inf'), 5: 4.0, 6: float('nan')}
    monkeypatch.setattr('mmkernel.engine.KeepBestHook._score', lambda hook, runner: scores[runner.epoch + 1])
    watchers = dict(best=WATCHERS['best'])
    for epochs, resume in ((1, False), (3, True), (6, True)):
        runner = train(config(tmp_path, watchers=watchers, **{'train_cfg.max_epochs': epochs}), resume=resume)
        record = runner.message_hub.runtime_info.get('best_rank')
        assert record == (None if epochs == 1 else dict(score=5.0, epoch=2))
        assert (tmp_path / 'best_rank.pth').is_file() == (epochs > 1)
    assert read_checkpoint(tmp_path / 'best_rank.pth')['meta']['epoch'] == 2


def test_features_of_nan_stop_no_run(tmp_path, monkeypatch):
    def broken(model, images, stage='backbone'):
        return torch.full((len(images), 8), torch.nan)

    monkeypatch.setattr('mmkernel.models.JointEmbedding.extract', broken)
    runner = train(config(tmp_path, watchers={**WATCHERS, 'doctor': dict(type='DoctorHook', interval=1, steps=0)}))
    assert runner.epoch == 3
    assert 'monitor/knn/top1' not in runner.message_hub.log_scalars
    assert runner.message_hub.get_scalar('monitor/probe/top1').current() == 0
    assert not (tmp_path / 'best_rank.pth').exists()


def test_what_is_no_cloud_is_not_measured():
    z = torch.randn(4, 3)
    assert measurable(z, 4)
    assert not measurable(z[:1], 4)
    assert not measurable(z[:, :1], 4)
    assert not measurable(torch.cat([z, z / 0]), 8)
    assert measurable(torch.cat([z, z / 0]), 4)


def _on_a_rank(rank, world_size, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))

    def trained(name, watchers, resume=False):
        cfg = config(folder / name, watchers=watchers, launcher='pytorch', **{'train_cfg.max_epochs': 2})
        return digest(train(cfg, resume=resume).model)

    watchers = WATCHERS | {'report': dict(type='ReportHook', images=20, least_steps=0)}
    digests = [trained('plain', {}), trained('watched', watchers)]
    if rank == 0:
        (folder / 'watched/epoch_2.pth').unlink()
    dist.barrier()
    digests.append(trained('watched', watchers, resume=True))
    z = torch.randn(4, 3)
    return digests, [measurable(x, 4) for x in (z, z[:1], z / 0 if rank else z)]


def test_two_processes_train_the_same_with_and_without(tmp_path):
    """Also resumed: rank 0 has the statistics of its batch norms back, those of others are in no file. All agree on a cloud."""
    found = run_processes(_on_a_rank, 2, tmp_path)
    for (plain, watched, _), agreed in found:
        assert plain == watched
        assert agreed == [True, True, False]
    assert found[0][0][2] == found[0][0][0]
    assert (tmp_path / 'watched/report.html').is_file()  # process 0 alone made it, once for each start
    assert not (tmp_path / 'watched/report.html.old').exists()


def test_an_alignment_of_patches_is_refused(tmp_path):
    cfg = config(tmp_path, 'cpc/digits_v1', dict(best=dict(type='KeepBestHook', criterion='alignment', images=20)), **{
        'model.neck.dims': (8,), 'train_cfg.max_epochs': 1, 'train_dataloader.batch_size': 8,
    })  # fmt: skip
    with pytest.raises(ValueError, match="trains on patches. Use 'rank'"):
        train(cfg)


def test_tensorboard(tmp_path):
    pytest.importorskip('torch.utils.tensorboard')
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    cfg = config(tmp_path, watchers=dict(monitor=WATCHERS['monitor']), **{'train_cfg.max_epochs': 1})
    cfg.visualizer = dict(type='Visualizer', vis_backends=backends)
    train(cfg)
    assert list(tmp_path.glob('*/vis_data/events.out.tfevents.*'))


def _alone(rank, world_size):
    """What each process says where the work of the first one alone fails."""

    def fail(*_):
        raise ValueError('no such image')

    probe, knn, said = OnlineProbeHook(), KNNMonitorHook(), []
    probe.on = knn.on = True
    probe.features = knn.features = fail
    model = nn.Identity()
    run = SimpleNamespace(epoch=0, model=model)
    for work in (
        lambda: probe.after_train_epoch(run),
        lambda: knn.after_train_epoch(run),
        lambda: look_alone(model, fail),
    ):
        try:
            work()
        except ValueError as error:
            said.append(str(error))
    return said


def test_all_processes_end_where_the_first_one_fails():
    assert run_processes(_alone, 2, timeout=300) == [['no such image'] * 3] * 2


@HOOKS.register_module()
class FirstBatch(Hook):
    """``inputs``: the views that the loader gave first."""

    inputs = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 0:
            FirstBatch.inputs = [view.clone() for view in data_batch['inputs']]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert not unwrap(runner.model).data_preprocessor._forward_hooks, 'later steps are not looked at'


def test_a_sheet_of_the_first_views_as_the_model_sees_them(tmp_path):
    """Normalised and turned back, each pixel is what the loader gave: view by view, image by image."""
    cfg = config(tmp_path, watchers={'sheet': WATCHERS['sheet']}, **{'train_cfg.max_epochs': 1})
    cfg.default_hooks.batch = dict(type='FirstBatch')
    train(cfg)
    page = np.asarray(Image.open(next(tmp_path.glob('*/views.png'))))
    views, (size, scale) = FirstBatch.inputs, (FirstBatch.inputs[0].shape[-1], 64 // FirstBatch.inputs[0].shape[-1])
    assert page.shape == (14 + 8 * (size * scale + 4), 4 + 2 * (size * scale + 4), 3)
    for v, view in enumerate(views):
        for i, image in enumerate(view[:8]):
            top, left = 14 + i * (size * scale + 4), 4 + v * (size * scale + 4)
            cell = page[top : top + size * scale : scale, left : left + size * scale : scale, 0]
            assert np.array_equal(cell, image[0].numpy())


def test_a_sheet_does_not_wait_for_the_device(tmp_path):
    hook, told = ViewSheetHook(images=2), []
    runner = SimpleNamespace(
        log_dir=str(tmp_path),
        logger=SimpleNamespace(info=told.append),
        train_dataloader=SimpleNamespace(dataset=object()),
    )
    over = iter([False, False, True])
    hook.copied = [torch.zeros(2, 3, 5, 5, dtype=torch.uint8)], SimpleNamespace(query=over.__next__)
    for written in (False, False, True, True):
        hook.after_train_iter(runner, 0)
        assert (tmp_path / 'views.png').is_file() == written
    assert len(told) == 1


def test_a_sheet_is_written_by_process_0_for_models_that_normalise(tmp_path):
    preprocessor = torch.nn.Identity()
    model = torch.nn.Module()
    model.data_preprocessor = preprocessor
    for rank, normalises in ((1, True), (0, False), (0, True)):
        preprocessor.mean = preprocessor.std = torch.ones(3, 1, 1)
        if not normalises:
            del preprocessor.mean
        ViewSheetHook().before_train(SimpleNamespace(model=model, rank=rank))
        assert len(preprocessor._forward_hooks) == (rank == 0 and normalises)
    with pytest.raises(ValueError, match='images'):
        ViewSheetHook(images=0)


def test_many_patches_leave_room_for_few_images():
    hook, preprocessor = ViewSheetHook(), SimpleNamespace(mean=torch.zeros(1), std=torch.ones(1))
    for views, images in ((2, 8), (49, 1), (200, 1)):
        hook.handle = SimpleNamespace(remove=lambda: None)
        hook.copy(preprocessor, None, dict(inputs=[torch.rand(20, 1, 4, 4)] * views))
        assert (len(hook.copied[0]), len(hook.copied[0][0])) == (min(views, 96), images)


@pytest.mark.parametrize('views_on', ['worker', 'device'])
def test_a_sheet_is_of_finished_views(tmp_path, views_on):
    """The same page, to a few grey levels, whoever made the views."""
    pages = []
    for options in (dict(exact=True), dict(exact=False, views_on=views_on)):
        folder = tmp_path / str(options['exact'])
        cfg = config(folder, watchers={'sheet': WATCHERS['sheet']}, **{'train_cfg.max_epochs': 1})
        ops = dict(
            jitter=dict(type='ColorJitter', brightness=0.4, contrast=0.4),
            blur=dict(type='GaussianBlur', sigma=(0.1, 2.0), probability=0.5),
            solarize=dict(type='Solarize', probability=0.3),
            flip=dict(type='RandomFlip'),
        )
        view = dict(count=2, size=16, crop=dict(type='RandomResizedCrop'), ops=ops)
        cfg.train_dataloader.dataset.update(views=dict(both=None, pair=view), **options)
        train(cfg)
        pages.append(np.asarray(Image.open(next(folder.glob('*/views.png'))), np.float32))
    difference = np.abs(pages[0] - pages[1])
    assert difference.mean() <= 1
    assert (difference > 4).mean() <= 1e-3
