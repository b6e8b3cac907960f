"""Runs with fsdp: an encoder of which each process holds a part trains as in one process, and its files are the same."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from multiprocess import run_processes
from test_position import TINY, differences
from torch import nn

from mmkernel.cli import main
from mmkernel.distributed.shards import is_spread
from mmkernel.engine import NonFiniteLossError, load_config, read_checkpoint, train
from mmkernel.engine.hooks import unwrap
from mmkernel.engine.sharded_state import take_shards
from mmkernel.registry import MODELS
from mmkernel.zoo import load

sys.path.insert(0, str(Path(__file__).parent))
import tiny_training  # noqa: E402, F401

VIT = dict(
    type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=8, patch_size=4, in_channels=1, depth=2, embed_dim=15,
    num_heads=3, qkv_bias=False,  # a bias of keys has no gradient but rounding, of which Adam makes steps
)  # fmt: skip
MOMENTUM = {
    'model.target': dict(type='MomentumTarget'), 'default_hooks.momentum': dict(type='MomentumUpdateHook', momentum=0.9),
}  # fmt: skip
ADAMW = dict(type='AdamW', lr=1e-3, weight_decay=0.1, _delete_=True)


class Block(nn.Module):
    """x + relu(norm(conv(x))); a batch norm's statistics would be those of a process on a CPU."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(7, 7, 3, padding=1), nn.GroupNorm(7, 7)

    def forward(self, x):
        return x + self.norm(self.conv(x)).relu()


@MODELS.register_module(force=True)
class TinyResNet(nn.Module):
    out_dim = 7

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(1, 7, 3), nn.Sequential(Block(), Block())

    def forward(self, x):
        return self.blocks(self.stem(x)).mean((2, 3))


QUEUE = dict(type='FeatureQueue', length=32, views=1)
MODES = {
    'SFRIK, ViT, LARS': {'activation_checkpointing': True, 'optim_wrapper.clip_grad': dict(max_norm=0.5)},
    'BYOL, ResNet, accumulation': {
        'model.backbone': dict(type='TinyResNet', _delete_=True), 'optim_wrapper.accumulative_counts': 2,
        'model.predictor': dict(type='MLPNeck', dims=(12,), norm=None),
        'model.head': dict(type='CosinePredictionHead', _delete_=True), **MOMENTUM,
    },
    'MoCo, ViT, queue, AdamW': {
        'model.head': dict(type='InfoNCEHead', negatives='queue', queue=QUEUE, _delete_=True),
        'model.online_views': (0,), 'model.target_views': (1,), 'optim_wrapper.optimizer': ADAMW,
        'optim_wrapper.layer_decay': 0.5, **MOMENTUM,
    },
    'SwAV, ResNet, prototypes, SGD': {
        'model.backbone': dict(type='TinyResNet', _delete_=True),
        'model.head': dict(type='SinkhornCodesHead', num_prototypes=6, _delete_=True),
        'optim_wrapper.optimizer': dict(type='SGD', lr=0.02, momentum=0.9, _delete_=True),
        'default_hooks.freeze': dict(type='FreezeHook', layers={'backbone.stem': dict(steps=1)}),
    },
    'SFRIK, ViT, virtual batch': {'train_cfg.virtual_batch': 32, 'optim_wrapper.optimizer': ADAMW},
}  # fmt: skip


def config(folder, world_size=1, shards=False, **options):
    options = {
        'train_dataloader.batch_size': 16 // world_size, 'launcher': 'pytorch' if world_size > 1 else 'none',
        'log_level': 'ERROR', 'train_cfg.max_epochs': 1, 'fsdp': True, 'lr_scaling': None, 'optim_wrapper.optimizer.lr': 0.03,
        'param_scheduler.warmup_epochs': 0, 'default_hooks.checkpoint.shards': shards, **options,
    }  # fmt: skip
    cfg = load_config(TINY)
    cfg.model = dict(
        type='JointEmbedding', backbone=VIT, neck=dict(type='MLPNeck', dims=(14, 12), norm=None),
        head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))),
        data_preprocessor=dict(type='ViewPreprocessor', mean=[0.0], std=[1.0]),
    )  # fmt: skip
    cfg.evaluation = dict(transform=dict(type='CenterView', resize=8, crop=8))
    cfg.work_dir = str(folder)
    cfg.merge_from_dict(options)
    return cfg


def run(rank, world_size, folder, settings, **start):
    return train(config(folder, world_size, **settings), **start)


def whole(path):
    """The checkpoint as one process reads it, its shards included."""
    return take_shards(read_checkpoint(path), nn.Linear(1, 1), None, path)


def weights(path):
    content = whole(path)
    momenta = {f'{i}.{name}': x for i, state in content['optimizer']['state'].items() for name, x in state.items()}
    rows = content['state_dict'].get('head.queue.rows')
    if rows is not None:  # in the order of ranks
        rows[0] = rows[0][rows[0, :, 0].argsort()]
    return {**content['state_dict'], **momenta}


def close(*paths):
    """Weights to 1e-6, momenta, which are sums of gradients, to 5e-6."""
    a, b = map(weights, paths)
    assert set(a) == set(b)
    for name in a:
        limit = 5e-6 if name[0].isdigit() else 1e-6
        torch.testing.assert_close(
            a[name], b[name], rtol=limit, atol=limit, msg=lambda text, name=name: f'{name}: {text}'
        )


def every_mode(rank, world_size, folder):
    found = {}
    for mode, options in MODES.items():
        model = unwrap(run(rank, world_size, folder / mode, options).model)
        parts = [model.backbone, *([model.target.backbone] if hasattr(model.target, 'backbone') else [])]
        found[mode] = all(is_spread(p) for part in parts for p in part.parameters())
        found[mode] &= not any(is_spread(p) for p in (*model.neck.parameters(), *model.head.parameters()))
    return found


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one(tmp_path, world_size):
    for found in run_processes(every_mode, world_size, tmp_path):
        assert all(found.values())
    for mode, options in MODES.items():
        run(0, 1, tmp_path / 'one' / mode, options)
        close(tmp_path / 'one' / mode / 'epoch_1.pth', tmp_path / mode / 'epoch_1.pth')


LONGER = {'train_cfg.max_epochs': 2, 'default_hooks.checkpoint.max_keep': None, **MODES['MoCo, ViT, queue, AdamW']}
FORMS = dict(whole=False, shards=True)


def on_two(rank, world_size, folder):
    for form, shards in FORMS.items():
        run(rank, world_size, folder / form / 'two', {**LONGER, 'shards': shards})
        for name, begin in dict(again='two', from_one='one').items():
            run(rank, world_size, folder / form / name, LONGER, resume=str(folder / form / begin / 'epoch_1.pth'))
    begin = str(folder / 'whole/two/epoch_1.pth')
    run(rank, world_size, folder / 'without', {**LONGER, 'fsdp': False}, resume=begin)


@pytest.mark.slow
def test_a_resumed_run_is_the_same_bit_for_bit_and_nearly_with_other_processes_and_without_fsdp(tmp_path, capsys):
    for form in FORMS:
        run(0, 1, tmp_path / form / 'one', LONGER)
    run_processes(on_two, 2, tmp_path)
    close(tmp_path / 'whole/one/epoch_2.pth', tmp_path / 'without/epoch_2.pth')
    for form, shards in FORMS.items():
        folder = tmp_path / form
        run(0, 1, folder / 'from_two', LONGER, resume=str(folder / 'two/epoch_1.pth'))
        files = [folder / name / 'epoch_2.pth' for name in ('two', 'again')]
        if not shards:
            assert not differences(*files)
        a, b = map(weights, files)
        assert all(torch.equal(a[name], b[name]) for name in a)
        for name in ('two', 'from_one', 'from_two'):
            close(folder / 'one/epoch_2.pth', folder / name / 'epoch_2.pth')
    capsys.readouterr()
    for form in FORMS:  # one command makes a file that timm reads
        path, out = tmp_path / form / 'two/epoch_2.pth', tmp_path / f'{form}.safetensors'
        main(['export', str(path), '--config', str(path.with_name('config.py')), '--to', 'timm', '--out', str(out)])
        images = torch.randint(0, 256, (3, 1, 8, 8)).byte()
        encoder = load(path, config(tmp_path))
        how = capsys.readouterr().out
        net = eval(how[how.index('timm.create_model') :], dict(timm=timm)).eval()
        assert torch.equal(net(images / 255), encoder.extract(images))
        assert torch.equal(encoder.backbone.norm.weight, whole(path)['state_dict']['backbone.norm.weight'])


def spoil(rank, world_size, folder):
    """A loss of process 1 is NaN in the third step."""
    model = dict(type='TinyModel', norm=False, bad_iteration=3 if rank else -1, _delete_=True)
    try:
        run(rank, world_size, folder, {'model': model, 'default_hooks.guard.interval': 4})
    except NonFiniteLossError as error:
        return str(error)


@pytest.mark.slow
def test_the_guard_ends_all_processes_at_the_step_that_one_has_spoilt(tmp_path):
    for said in run_processes(spoil, 2, tmp_path):
        assert 'The loss of iteration 2 is nan' in said
        assert 'weights are not finite' not in said
    assert not list(tmp_path.glob('epoch_*'))


def monitored(rank, world_size, folder):
    cfg = load_config(
        Path(__file__).parents[2] / 'configs/sfrik/digits_vit.py',
        {
            'fsdp': True, 'launcher': 'pytorch', 'train_cfg.max_epochs': 2, 'train_dataloader.num_batch_per_epoch': 2,
            'log_level': 'ERROR', 'optim_wrapper.precision': 'bfloat16', 'activation_checkpointing': True,
            'default_hooks.doctor': dict(type='DoctorHook', interval=1, steps=0, images=32),
            'default_hooks.knn': dict(type='KNNMonitorHook', interval=1),
        },
    )  # fmt: skip
    cfg.work_dir = str(folder)
    hub = train(cfg).message_hub
    return dict(top1=float(hub.get_scalar('monitor/knn/top1').current()) if rank == 0 else 0)


@pytest.mark.slow
def test_monitors_of_process_0_look_at_whole_encoders(tmp_path):
    first, _ = run_processes(monitored, 2, tmp_path)
    assert first['top1'] > 10


@pytest.mark.parametrize(
    'options, message',
    [
        ({'compile': True}, 'fsdp=True and compile do not go together'),
        ({'channels_last': True}, 'fsdp=True and channels_last do not'),
        (
            {'optim_wrapper': dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), _delete_=True)},
            "fsdp=True and optim_wrapper.type='OptimWrapper' do not",
        ),
        ({'model_wrapper_cfg': dict(type='MMDistributedDataParallel')}, 'fsdp=True and model_wrapper_cfg do not'),
        ({'fsdp': 2}, 'fsdp = 2; expected True or False'),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_config(TINY, {'fsdp': True, **options})


def refuse(rank, world_size, folder):
    with pytest.raises(ValueError, match='RMSprop is not known to'):
        run(rank, world_size, folder, {'optim_wrapper.optimizer': dict(type='RMSprop', lr=0.1, _delete_=True)})


@pytest.mark.slow
def test_an_optimizer_that_would_take_a_part_for_the_whole_is_refused(tmp_path):
    run_processes(refuse, 2, tmp_path)
