"""The dry run: numbers of a run without data, memory or GPU."""

import io
from pathlib import Path

import pytest
import torch

from mmkernel.engine import ConfigError, dry_run, load_config
from mmkernel.engine.dry_run import build_on_meta, make_plan, number_of_images, readable
from mmkernel.engine.training import main

CONFIG = Path(__file__).parent / 'tiny_config.py'


def test_numbers_of_the_tiny_run():
    cfg = load_config(CONFIG, {'optim_wrapper.accumulative_counts': 2})
    plan = make_plan(cfg, world_size=2)
    assert plan.parameters == {'backbone': 40 + 8, 'neck': 144 * 8 + 8}
    assert (plan.rows, plan.width, plan.steps_per_epoch) == (16, 8, 4)
    text = dry_run(cfg, world_size=2, file=io.StringIO())
    for part in ('1,208', '32 = 8 x 2 processes x 2 accumulated', '0.0375 = 0.3 x 32 / 256', 'TinyModel', 'N x N'):
        assert part in text


def test_part_of_an_epoch():
    cfg = load_config(CONFIG)
    cfg.train_dataloader.num_batch_per_epoch = 3
    assert make_plan(cfg, world_size=2).steps_per_epoch == 3
    cfg.train_dataloader.num_batch_per_epoch = 5
    assert 'num_batch_per_epoch=5 asks for more than 64 images' in dry_run(cfg, world_size=2, file=io.StringIO())


def test_the_model_has_no_memory():
    model = build_on_meta(load_config(CONFIG))
    assert {p.device.type for p in model.parameters()} == {'meta'}


def test_unknown_length_is_said(tmp_path):
    cfg = load_config(CONFIG)
    cfg.pop('num_samples')
    assert number_of_images(cfg) == 64  # built: this data set needs no disk
    missing = dict(type='ImageFolder', root=str(tmp_path / 'none'))
    cfg.train_dataloader.dataset = dict(type='ViewDataset', source=missing, views=dict(a=dict(count=3)))
    assert number_of_images(cfg) is None
    assert 'unknown' in dry_run(cfg, file=io.StringIO())


def test_command_line(capsys):
    main([str(CONFIG), '--dry-run', '--gpus', '4', '--amp', 'bf16', '--seed', '3', '--cfg-options', 'model.width=4'])
    text = capsys.readouterr().out
    for part in ('8 x 4 processes', "precision='bfloat16'", 'seed=3', 'width=4'):
        assert part in text


def test_a_mistake_on_the_command_line_is_one_line():
    with pytest.raises(SystemExit, match="ConfigError: .*no key 'model.witdh'.*'model.width'"):
        main([str(CONFIG), '--cfg-options', 'model.witdh=4'])
    with pytest.raises(SystemExit, match='FileNotFoundError: .*tiny_config.py'):
        main([str(CONFIG.with_name('tiny_confg.py'))])


@pytest.mark.parametrize(
    'change, message',
    [
        (
            {'head.num_prototypes': 40},
            r'40 prototypes for 16 rows .*\(Reckoned with 2 process\(es\) of 8 images; --gpus',
        ),
        ({'head.queue_length': 32}, 'queue of model.head would never be used'),
        (
            {'head.queue_length': 24, 'queue': dict(type='QueueHook')},
            'length 24 is no multiple of the global batch of 16',
        ),
        ({'target': dict(type='MomentumTarget')}, 'exactly one hook must move; there are 0'),
        ({'freeze': dict(type='FreezeHook', layers=dict(neck=3))}, 'FreezeHook.layers'),
    ],
)
def test_what_would_end_the_run_at_its_start_is_said(change, message, capsys):
    cfg = load_config(CONFIG)
    cfg.data_preprocessor = dict(type='ViewPreprocessor', mean=[0.5], std=[0.2])
    cfg.model = dict(
        type='JointEmbedding',
        backbone=dict(type='TIMMBackbone', model_name='resnet10t', in_channels=1),
        neck=dict(type='MLPNeck', dims=(8, 6)),
        head=dict(type='SinkhornCodesHead', num_prototypes=5),
    )
    dry_run(cfg, world_size=2, file=io.StringIO())
    for key, value in change.items():
        place = {'head': cfg.model.head, 'target': cfg.model}.get(key.split('.')[0], cfg.default_hooks)
        place[key.split('.')[-1]] = value
    with pytest.raises(ConfigError, match=message):
        dry_run(cfg, world_size=2)
    assert not capsys.readouterr().out


def test_a_real_model_at_full_width():
    """A ResNet-50 with q = 32768 has 405 M parameters; none of them may be allocated."""
    cfg = load_config(CONFIG)
    cfg.data_preprocessor = dict(type='ViewPreprocessor', mean=[0.5] * 3, std=[0.2] * 3)
    cfg.model = dict(
        type='JointEmbedding',
        backbone=dict(type='TIMMBackbone', model_name='resnet50', zero_init_residual=True, pretrained=True),
        neck=dict(type='MLPNeck', dims=(8192, 8192, 32768)),
        head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))),
    )
    source = dict(type='ImageNet', root='data/imagenet')
    cfg.train_dataloader.dataset = dict(type='ViewDataset', source=source, views=dict(a=dict(count=2)))
    cfg.train_dataloader.batch_size = 256
    cfg.pop('num_samples')
    plan = make_plan(cfg, world_size=8)
    assert plan.parameters['backbone'] == 23_508_032
    assert plan.width == 32768
    assert plan.steps_per_epoch == 1281167 // 2048
    assert plan.memory()['Gram matrix of one view, N x N = 2048 x 2048'] == 4 * 2048**2
    assert torch.empty(0).device.type == 'cpu'  # the meta device was left


@pytest.mark.parametrize(
    'size, text', [(12, '12 B'), (2048, '2.0 KiB'), (5 * 2**30, '5.0 GiB'), (3 * 2**40, '3.0 TiB')]
)
def test_readable(size, text):
    assert readable(size) == text
