"""What a resume compares: each difference once, in words; another run is refused."""

import logging

import pytest
import torch
from test_runner import config, digest, other_optimizer

from mmkernel.cli import main
from mmkernel.engine import OtherRunError, load_config, read_checkpoint, train, write_checkpoint
from mmkernel.engine.resume_check import compare_runs, compare_settings, resolved, versions


@pytest.fixture(scope='module')
def digits(repository):
    """settings(**{'a.b': 1}) of a recipe."""
    return lambda **options: resolved(load_config(repository / 'configs/sfrik/digits_L3.py', options).to_dict())


def meta(settings, **more):
    return dict(settings=settings, world_size=1, versions=versions(), **more)


RBF = dict(type='RBFKernel', scale=2.0, _delete_=True)
BARLOW = dict(type='CrossCorrelationHead', _delete_=True)


@pytest.mark.parametrize('key, value, said', [
    ('model.head.kernel', RBF, r'model.head.kernel: LegendreKernel\(weights=\[1.0, 40.0, 40.0\]\) -> RBFKernel\(scale=2.0\)'),
    ('model.head.kernel.weights', (1.0, 40.0), r'model.head.kernel.weights: \[1.0, 40.0, 40.0\] -> \[1.0, 40.0\]'),
    ('model.head', BARLOW, r'model.head: KernelMMDHead\(.*\) -> CrossCorrelationHead\(\)'),
    ('model.head.alignment_weight', 10.0, 'model.head.alignment_weight: 20.0 -> 10.0'),
    ('model.neck.dims', (256, 256, 512), 'model.neck.dims'),
    ('model.batching', 'all', "model.batching: not set -> 'all'"),
    ('train_dataloader.dataset.views.both.count', 3, r'views.both.count: 2 -> 3'),
    ('train_dataloader.dataset.source.split', 'test', "source.split: 'train' -> 'test'"),
    ('data_preprocessor.mean', (1.0,), r'data_preprocessor.mean'),
    ('train_dataloader.sampler.shuffle', False, 'sampler.shuffle: True -> False'),
])  # fmt: skip
def test_another_run_is_refused(digits, key, value, said):
    with pytest.raises(OtherRunError, match=said) as error:
        compare_runs(meta(digits()), digits(**{key: value}), 1, 'epoch_2.pth')
    assert '--resume-anyway' in str(error.value)
    words = compare_runs(meta(digits()), digits(**{key: value}), 1, 'epoch_2.pth', anyway=True)
    assert len(words) == 1


@pytest.mark.parametrize('key, value, said', [
    ('optim_wrapper.precision', 'bfloat16', ["optim_wrapper.precision: 'float32' -> 'bfloat16'"]),
    ('optim_wrapper.optimizer.lr', 0.2, ['optim_wrapper.optimizer.lr: 0.1 -> 0.2']),
    ('train_cfg.max_epochs', 40, ['train_cfg.max_epochs: 20 -> 40']),
    ('param_scheduler.end_factor', 0.1, ['param_scheduler.end_factor: 0.0 -> 0.1']),
    ('train_dataloader.batch_size', 64, ['train_dataloader.batch_size: 128 -> 64', 'effective batch: 128 -> 64']),
    ('optim_wrapper.accumulative_counts', 2,
     ['optim_wrapper.accumulative_counts: 1 -> 2', 'effective batch: 128 -> 256']),
    ('lr_scaling', None, ["lr_scaling: 'linear' -> None"]),
    ('sync_bn', False, ['sync_bn: True -> False']),
    ('train_dataloader.num_workers', 4, []), ('default_hooks.logger.interval', 3, []), ('work_dir', 'there', []),
    ('default_hooks.checkpoint.max_keep', 9, []), ('default_hooks.doctor', None, []), ('visualizer', None, []),
    ('model.head.kernel.weights', [1, 40, 40], []),  # the same numbers
    ('model.head.statistic', 'V', []), ('model.batching', 'view', []),  # defaults, written out
])  # fmt: skip
def test_what_is_only_said_and_what_needs_no_word(digits, key, value, said):
    assert compare_runs(meta(digits()), digits(**{key: value}), 1, 'epoch_2.pth') == said


def test_processes_and_versions_are_said(digits):
    then = meta(digits())
    then |= dict(world_size=8, versions={**versions(), 'torch': '1.0', 'python': '3.8'})
    words = compare_runs(then, digits(**{'train_dataloader.batch_size': 1024}), 1, 'epoch_2.pth')
    now = versions()
    assert words == [
        'train_dataloader.batch_size: 128 -> 1024', 'world_size: 8 -> 1',
        f"version of torch: '1.0' -> '{now['torch']}'", f"version of python: '3.8' -> '{now['python']}'",
    ]  # fmt: skip


def test_the_order_of_operations_counts_and_that_of_keywords_does_not():
    def settings(*ops, **source):
        views = dict(both=dict(count=2, ops={op: dict(type=op) for op in ops}))
        return dict(train_dataloader=dict(dataset=dict(source=source, views=views)))

    assert not compare_settings(settings('a', 'b', x=1, y=2), settings('a', 'b', y=2, x=1))
    (found,) = compare_settings(settings('a', 'b'), settings('b', 'a'))
    assert str(found) == "train_dataloader.dataset.views.both.ops (order): ['a', 'b'] -> ['b', 'a']"


def test_hooks_are_compared_by_what_they_are():
    momentum = dict(type='MomentumUpdateHook', momentum=0.99)
    here = dict(default_hooks=dict(a=momentum, doctor=dict(type='DoctorHook')), custom_hooks=[dict(type='Mine', n=1)])
    there = dict(default_hooks=dict(doctor=None), custom_hooks=[dict(type='Mine', n=1), momentum])
    assert not compare_settings(here, there)
    found = compare_settings(here, dict(custom_hooks=[dict(momentum, momentum=0.9), dict(type='Mine', n=2)]))
    assert [(str(each), each.meaning) for each in found] == [
        ('hooks.MomentumUpdateHook.momentum: 0.99 -> 0.9', 'refused'), ('hooks.Mine.n: 1 -> 2', 'said'),
    ]  # fmt: skip


def strip(path):
    """As earlier versions wrote it."""
    content = read_checkpoint(path)
    for key in ('run', 'settings', 'images'):
        del content['meta'][key]
    del content['meta']['versions']['python']
    write_checkpoint(content, path)


def test_a_checkpoint_of_an_earlier_version_goes_on_bit_for_bit(tmp_path):
    straight = train(config(tmp_path / 'a'))
    train(config(tmp_path / 'b', **{'train_cfg.max_epochs': 4}))
    for epoch in (2, 3):
        strip(tmp_path / f'b/epoch_{epoch}.pth')
    for name in ('epoch_4.pth', 'run.json'):
        (tmp_path / 'b' / name).unlink()
    resumed = train(config(tmp_path / 'b', **{'default_hooks.checkpoint.max_keep': 2}), resume=True)
    assert digest(resumed.model) == digest(straight.model)
    assert sorted(path.name for path in (tmp_path / 'b').glob('*.pth')) == ['epoch_3.pth', 'epoch_4.pth']


def test_a_refused_resume_changes_no_file_and_anyway_goes_on(tmp_path, caplog):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    before = {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()}
    changed = {'train_dataloader.dataset.seed': 5, 'train_cfg.max_epochs': 2, 'log_level': 'WARNING'}
    with pytest.raises(OtherRunError, match=r'dataset.seed: not set -> 5'):
        train(config(tmp_path, **changed), resume=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob('*') if path.is_file()} == before
    cfg = config(tmp_path, **changed)
    cfg.resume, cfg.resume_anyway = True, True
    assert train(cfg).epoch == 2
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert log.count('dataset.seed: not set -> 5') == log.count('max_epochs: 1 -> 2') == 1


def test_the_command_line_lists_the_differences(tmp_path, repository):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    words = [str(repository / 'tests/test_engine/tiny_config.py'), '--work-dir', str(tmp_path)]
    options = ['--cfg-options', 'model.width=16', 'train_cfg.max_epochs=1']
    with pytest.raises(SystemExit, match=r'OtherRunError(.|\n)*model.width: not set -> 16'):
        main(['train', *words, '--resume', *options])
    main(['train', *words, '--resume-anyway', '--cfg-options', 'train_cfg.max_epochs=1'])


def test_other_data_under_the_same_config_are_refused(tmp_path, monkeypatch):
    import tiny_training

    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    monkeypatch.setattr(tiny_training.TinyViews, '__len__', lambda self: 72)
    with pytest.raises(OtherRunError, match='64 images, now there are 72'):
        train(config(tmp_path), resume=True)


def milestones(folder, *steps, epochs=1):
    cfg = other_optimizer(folder, epochs)
    cfg.param_scheduler = [dict(type='MultiStepLR', milestones=list(steps), gamma=0.5)]
    return cfg


def test_new_milestones_of_mmengine_have_no_effect_and_are_refused(tmp_path):
    train(milestones(tmp_path, 1))
    with pytest.raises(
        OtherRunError, match=r'param_scheduler.0.milestones: \[1\] -> \[3\] \(a schedule of mmengine continues'
    ):
        train(milestones(tmp_path, 3, epochs=2), resume=True)
    train(milestones(tmp_path, 3, epochs=2), resume_anyway=True)


def test_a_schedule_of_mmengine_that_ends_with_the_shorter_run_is_said(tmp_path):
    def cosine(epochs):
        cfg = other_optimizer(tmp_path, epochs)
        cfg.param_scheduler, cfg.log_level = [dict(type='CosineAnnealingLR')], logging.WARNING
        return cfg

    train(cosine(1))
    train(cosine(2), resume=True)
    log = max(tmp_path.glob('*/*.log')).read_text()
    assert 'CosineAnnealingLR continues as in the checkpoint' in log
    assert "'T_max': (1, 2)" in log


def test_checkpoints_say_of_what_run_they_are(tmp_path):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    found = read_checkpoint(tmp_path / 'epoch_1.pth')['meta']
    assert set(found['versions']) == {'mmkernel', 'torch', 'mmengine', 'python'}
    assert found['settings']['model']['type'] == 'TinyModel'
    assert (found['world_size'], found['images'], len(found['run'])) == (1, 64, 32)
    assert all(isinstance(value, str) and type(value) is str for value in found['versions'].values())
    assert torch.__version__.startswith(found['versions']['torch'][:3])


def test_classes_and_functions_in_a_config_are_compared_by_name():
    """An object's text holds its address, which is another in each process."""
    settings = [resolved(dict(model=dict(type=torch.nn.Linear, init=lambda: 0, part=object()))) for _ in range(2)]
    assert settings[0] == settings[1]
    assert settings[0]['model']['type'] == 'Linear'
