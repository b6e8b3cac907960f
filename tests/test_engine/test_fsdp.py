"""Runs with fsdp: an encoder of which W processes hold a part each trains as one process does, and its files are the same."""

import sys
from pathlib import Path

import torch
from multiprocess import run_processes
from test_position import TINY

from mmkernel.engine import load_config, read_checkpoint, train
from mmkernel.engine.sharded_state import take_shards

sys.path.insert(0, str(Path(__file__).parent))
import tiny_training  # noqa: E402, F401

SFRIK = dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0)))
VIT = dict(
    type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=8, patch_size=4, in_channels=1, depth=2, embed_dim=15,
    num_heads=3,
)  # fmt: skip
MOMENTUM = {
    'model.target': dict(type='MomentumTarget'), 'default_hooks.momentum': dict(type='MomentumUpdateHook', momentum=0.9),
}  # fmt: skip


def config(folder, world_size=1, **options):
    options = {
        'train_dataloader.batch_size': 16 // world_size, 'launcher': 'pytorch' if world_size > 1 else 'none',
        'log_level': 'ERROR', 'train_cfg.max_epochs': 1, 'train_dataloader.num_batch_per_epoch': 3, 'fsdp': world_size > 1,
        'activation_checkpointing': True, **options,
    }  # fmt: skip
    cfg = load_config(TINY)
    cfg.model = dict(
        type='JointEmbedding', backbone=VIT, neck=dict(type='MLPNeck', dims=(14, 12), norm=None), head=SFRIK,
        data_preprocessor=dict(type='BaseDataPreprocessor'),
    )  # fmt: skip
    cfg.work_dir = str(folder)
    cfg.merge_from_dict(options)
    return cfg


def run(rank, world_size, folder, settings, **start):
    return dict(iter=train(config(folder, world_size, **settings), **start).iter)


def close(a, b):
    a, b = map(weights, (a, b))
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


def weights(path):
    content = take_shards(read_checkpoint(path), torch.nn.Linear(1, 1), None, path)
    momenta = {f'{i}.{name}': x for i, state in content['optimizer']['state'].items() for name, x in state.items()}
    return {**content['state_dict'], **momenta}


def test_one(tmp_path):
    run_processes(run, 2, tmp_path / 'two', {})
    run(0, 1, tmp_path / 'one', {})
    close(tmp_path / 'one/epoch_1.pth', tmp_path / 'two/epoch_1.pth')
