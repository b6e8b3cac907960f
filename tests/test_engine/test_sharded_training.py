"""Runs with a sharded neck: W processes equal one; checkpoints, whole or of shards, are read by any number of processes."""

import sys
from pathlib import Path

import pytest
import torch
from multiprocess import run_processes
from test_position import TINY, differences
from torch import nn

from mmkernel.engine import CheckpointError, NonFiniteLossError, load_checkpoint, load_config, read_checkpoint, train
from mmkernel.engine.sharded_state import take_shards
from mmkernel.models import build_model
from mmkernel.registry import MODELS

sys.path.insert(0, str(Path(__file__).parent))
import tiny_training  # noqa: E402, F401

Q = 22  # no multiple of 4


@MODELS.register_module(force=True)
class FlatEncoder(nn.Sequential):
    """No batch norm: on a CPU its statistics would be those of a process."""

    out_dim = 12

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 12), nn.Tanh())


def config(folder, world_size=1, sharded=True, shards=False, **options):
    options = {
        'train_dataloader.batch_size': 16 // world_size, 'launcher': 'pytorch' if world_size > 1 else 'none',
        'log_level': 'ERROR', 'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.shards': shards, **options,
    }  # fmt: skip
    cfg = load_config(TINY)
    cfg.model = dict(
        type='JointEmbedding',
        backbone=dict(type='FlatEncoder'),
        neck=dict(type='MLPNeck', dims=(14, Q), bias=False, sharded=sharded, last_norm='BN'),
        head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))),
        data_preprocessor=dict(type='BaseDataPreprocessor'),
    )
    cfg.work_dir = str(folder)
    cfg.merge_from_dict(options)
    return cfg


def run(rank, world_size, folder, settings, **start):
    start = {**start, **settings.pop('start', {})}
    runner = train(config(folder, world_size, **settings), **start)
    return dict(iter=runner.iter)


MODES = {
    'plain': {},
    'accumulation, clipping': {'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.clip_grad': dict(max_norm=0.05)},
    'virtual batch': {'train_cfg.virtual_batch': 32},
    'momentum target': {
        'model.target': dict(type='MomentumTarget'), 'default_hooks.momentum': dict(type='MomentumUpdateHook', momentum=0.9),
        'optim_wrapper.optimizer': dict(type='AdamW', lr=0.01, _delete_=True),
    },
    'two layers': {'model.neck.sharded': 2, 'optim_wrapper.clip_grad': dict(max_norm=0.05)},
    'frozen': {'default_hooks.freeze': dict(type='FreezeHook', layers={'neck.3': dict(steps=2)})},
}  # fmt: skip


def whole(path):
    """The checkpoint as one process reads it, its shards included."""
    return take_shards(read_checkpoint(path), nn.Linear(1, 1), None, path)


def weights(path):
    content = whole(path)
    momenta = {f'{i}.{name}': x for i, state in content['optimizer']['state'].items() for name, x in state.items()}
    return {**content['state_dict'], **momenta}


def close(a, b):
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


def every_mode(rank, world_size, folder):
    for mode in MODES:
        run(rank, world_size, folder / mode, dict(MODES[mode]))


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one(tmp_path, world_size):
    run_processes(every_mode, world_size, tmp_path)
    for mode in MODES:
        run(0, 1, tmp_path / 'one' / mode, {**MODES[mode], 'model.neck.sharded': False})
        close(weights(tmp_path / 'one' / mode / 'epoch_2.pth'), weights(tmp_path / mode / 'epoch_2.pth'))


LONGER = {'train_cfg.max_epochs': 3, 'default_hooks.checkpoint.max_keep': None, **MODES['momentum target']}


FORMS = dict(whole=dict(shards=False), shards=dict(shards=True, sharded=2))


def on_two(rank, world_size, folder):
    for form, settings in FORMS.items():
        run(rank, world_size, folder / form / 'two', LONGER | settings)
        for name, begin in dict(again='two', from_one='one').items():
            start = dict(resume=str(folder / form / begin / 'epoch_1.pth'))
            run(rank, world_size, folder / form / name, LONGER | settings | dict(start=start))


def test_a_resumed_run_is_the_same_bit_for_bit_and_with_other_processes_nearly(tmp_path):
    for form, settings in FORMS.items():
        run(0, 1, tmp_path / form / 'one', LONGER | settings)
    run_processes(on_two, 2, tmp_path)
    for form, settings in FORMS.items():
        folder = tmp_path / form
        start = dict(resume=str(folder / 'two/epoch_1.pth'))
        run(0, 1, folder / 'from_two', LONGER | settings | dict(sharded=False, start=start))
        files = [folder / name / 'epoch_3.pth' for name in ('two', 'again')]
        assert differences(*files) == ['.shards.folder'][: settings['shards']]
        a, b = map(weights, files)
        assert all(torch.equal(a[name], b[name]) for name in a)
        for name in ('two', 'from_one', 'from_two'):
            close(weights(folder / 'one/epoch_3.pth'), weights(folder / name / 'epoch_3.pth'))
        assert len(list((folder / 'two').glob('epoch_*.shards'))) == (3 if settings['shards'] else 0)


@pytest.mark.slow
@pytest.mark.parametrize('shards', [False, True], ids=['whole', 'shards'])
def test_four_processes_go_on_from_one(tmp_path, shards):
    settings = dict(LONGER, shards=shards)
    run(0, 1, tmp_path / 'one', settings)
    start = dict(resume=str(tmp_path / 'one/epoch_2.pth'))
    run_processes(run, 4, tmp_path / 'four', dict(settings, start=start))
    close(weights(tmp_path / 'one/epoch_3.pth'), weights(tmp_path / 'four/epoch_3.pth'))


def test_shards_go_with_their_file_and_a_file_without_them_is_refused(tmp_path):
    run_processes(run, 2, tmp_path, {'shards': True, 'default_hooks.checkpoint.max_keep': 1})
    (folder,) = tmp_path.glob('*.shards')
    assert folder.name.startswith('epoch_2.')
    model, q = build_model(config(tmp_path, sharded=False)), dict(state_dict=0, optimizer=0)
    load_checkpoint(model, tmp_path / 'epoch_2.pth')
    assert torch.equal(model.neck[3].weight, whole(tmp_path / 'epoch_2.pth')['state_dict']['neck.3.weight'])
    assert model.neck[3].weight.shape == (Q, 14)
    for label in read_checkpoint(tmp_path / 'epoch_2.pth')['shards']['rows']:
        q[label.split('/')[0]] += 1
    assert q == dict(state_dict=5, optimizer=3)  # a weight; scale, shift, mean and variance of a norm; three momenta
    folder.rename(tmp_path / 'elsewhere')
    with pytest.raises(CheckpointError, match='is not beside it: copy both'):
        load_checkpoint(model, tmp_path / 'epoch_2.pth')


@pytest.mark.parametrize(
    'options, message',
    [
        ({'optim_wrapper.optimizer': dict(type='RMSprop', lr=0.1, _delete_=True)}, 'RMSprop is not known to'),
        ({'optim_wrapper.clip_grad': dict(max_norm=1.0, norm_type=1)}, 'norm_type=1 does not: take 2'),
    ],
)
def test_steps_that_would_take_a_part_for_the_whole_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=f'must count the shards of all ranks as one, and .*{message}'):
        run(0, 1, tmp_path, options)


def spoil(rank, world_size, folder):
    """A shard of process 1 is spoilt behind the back of the guard."""
    runner = train(config(folder, world_size, shards=True))
    if rank == 1:
        runner.model.module.neck[3].weight.data[0, 0] = torch.nan
    runner.train_loop._batch = None
    try:
        runner.save_checkpoint(folder, 'epoch_3.pth')
    except NonFiniteLossError as error:
        return str(error)


def test_non_finite_shards_of_any_process_are_not_written(tmp_path):
    first, second = run_processes(spoil, 2, tmp_path)
    assert 'not in this one' in first
    assert '(state_dict/neck.3.weight); ' in second
    assert not list(tmp_path.glob('epoch_3*'))
