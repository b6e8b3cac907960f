"""The dry run: numbers of a run without data, memory or GPU."""

import io
from pathlib import Path

import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS

from mmkernel.cli import main
from mmkernel.engine import ConfigError, load_config
from mmkernel.models import Head, TIMMBackbone
from mmkernel.planning.dry_run import build_on_meta, dry_run, make_plan, number_of_images, readable
from mmkernel.registry import DATASETS, MODELS

CONFIG = Path(__file__).parents[1] / 'test_engine/tiny_config.py'


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
    main(
        [
            'train',
            str(CONFIG),
            '--dry-run',
            '--gpus',
            '4',
            '--amp',
            'bf16',
            '--seed',
            '3',
            '--cfg-options',
            'model.width=4',
        ]
    )
    text = capsys.readouterr().out
    for part in ('8 x 4 processes', "precision='bfloat16'", 'seed=3', 'width=4'):
        assert part in text


def test_a_mistake_on_the_command_line_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match="ConfigError: model: .*keyword 'witdh'.*'width'"):
        main(['train', str(CONFIG), '--cfg-options', 'model.witdh=4'])
    with pytest.raises(SystemExit, match='FileNotFoundError: .*tiny_config.py'):
        main(['train', str(CONFIG.with_name('tiny_confg.py'))])
    with pytest.raises(SystemExit, match="ConfigError: precision='float16' needs a GPU.*--amp bf16"):
        main(['train', str(CONFIG), '--work-dir', str(tmp_path / 'half'), '--amp', 'fp16'])
    assert not (tmp_path / 'half').exists()


@pytest.mark.parametrize(
    'change, message',
    [
        ({'head.queue_length': 32}, 'queue of model.head would never be used'),
        (
            {'head.queue_length': 24, 'queue': dict(type='QueueHook')},
            r'length 24 is not a multiple of the global batch of 16.*\(Reckoned with 2 process\(es\) of 8 images; --gpus',
        ),
        ({'target': dict(type='MomentumTarget')}, 'exactly one hook must move; there are 0'),
        ({'freeze': dict(type='FreezeHook', layers=dict(neck=3))}, 'FreezeHook.layers'),
        ({'second': dict(type='CheckpointHook')}, r'Two hooks, .*: epoch_<n>\.pth'),
        ({'second': dict(type='LoggerHook')}, 'the work of a LoggerHook'),
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


def test_a_rank_holds_its_part_of_a_sharded_neck(repository):
    cfg = load_config(repository / 'configs/sfrik/r50_L2_q262144.py')
    plan = make_plan(cfg, world_size=8)
    whole, memory = 8192 * 262144, plan.memory()
    assert memory['weights'] == memory['gradients'] == memory['optimizer'] == 4 * (plan.total - whole * 7 // 8)
    assert memory['columns of embeddings, V x N x q/W = 2 x 2048 x 32768'] == 4 * 2 * 2048 * 32768
    assert memory['gathered rows before the sharded layer, V x N x d = 2 x 2048 x 8192'] == 4 * 2 * 2048 * 8192
    cfg.model.neck.dims = (8192, 8192, 4)
    with pytest.raises(ConfigError, match='model.neck: 4 features are too few to lie on 8 ranks'):
        make_plan(cfg, world_size=8)
    cfg.model.neck.dims, cfg.optim_wrapper.precision = (64, 64), 'float16'
    with pytest.raises(ConfigError, match="the loss scaling of precision='float16' does not"):
        make_plan(cfg, world_size=8)
    cfg.custom_hooks = [dict(type='EMAHook')]
    with pytest.raises(ConfigError, match='EMAHook would save one process'):
        make_plan(cfg, world_size=8)


@pytest.mark.parametrize(
    'size, text', [(12, '12 B'), (2048, '2.0 KiB'), (5 * 2**30, '5.0 GiB'), (3 * 2**40, '3.0 TiB')]
)
def test_readable(size, text):
    assert readable(size) == text


def digits(method, **options):
    path = Path(__file__).parents[2] / f'configs/{method}.py'
    return load_config(path, {key.replace('__', '.'): value for key, value in options.items()})


@pytest.mark.parametrize(
    'method, options, words',
    [
        ('wmse/digits_2views', dict(model__head__sub_batch_size=16), 'Whitening 16 dimensions needs more samples'),
        ('wmse/digits_2views', dict(model__head__sub_batch_size=100), 'sub-batches of 100'),
        ('moco/digits_v2', dict(model__head__queue__length=1000), 'length 1000 is not a multiple'),
        ('moco/digits_v2', dict(model__target__sub_batches=7), 'sub_batches = 7 does not divide'),
        ('vicreg/digits', dict(train_dataloader__batch_size=1), 'more than 1 value per channel'),
        ('vicreg/digits', dict(train_dataloader__dataset__views__both__count=1), 'at least two views'),
        ('vicreg/digits', dict(train_dataloader__dataset__views_on='gpu'), "views_on = 'gpu'; expected auto, device or worker"),
        ('vicreg/digits', dict(train_dataloader__dataset__exact='no'), "exact = 'no'; expected True or False"),
        ('vicreg/digits', dict(train_dataloader__dataset__views_on='device'), "exact=True.*views_on='device'"),
        (
            'vicreg/digits', dict(train_dataloader__dataset__views_on='device', train_dataloader__dataset__exact=False),
            "view 'both': RandomAffine, GaussianNoise, RandomErasing cannot run on the device",
        ),
        ('vicreg/digits', dict(model__head__layout='diagonal'), 'layout is one of'),
        ('vicreg/digits', dict(model__head__precision='half'), 'precision is one of'),
        ('vicreg/digits', dict(train_dataloader__sampler__num_samples=10**6), 'lower num_batch_per_epoch'),
        ('vicreg/digits', dict(optim_wrapper__accumulative_counts=0), 'accumulative_counts=0'),
        ('vicreg/digits', dict(optim_wrapper__optimizer__lr=float('inf')), 'lr=inf'),
        ('vicreg/digits', dict(param_scheduler__end_factor=-1.0), 'end_factor=-1.0'),
        ('vicreg/digits', dict(train_cfg__virtual_batch=256, train_dataloader__drop_last=False), 'drop_last=True'),
        ('vicreg/digits', dict(model__batching='pixel'), 'batching is one of'),
        ('vicreg/digits', dict(optim_wrapper__precision='fp16'), 'fp16'),
        ('cpc/digits_v1', dict(model__head__grid=(2, 3), model__head__steps=1), 'expects 6 views, the batch has 9'),
        ('dbn/digits_dbn', dict(train_dataloader__batch_size=2, model__neck__last_norm__eps=0.0), 'more rows'),
        ('deepcluster/digits_v2', dict(model__head__num_clusters=(5000,)), '5000'),
        ('vicreg/digits', dict(model__neck__dims=256), r'MLPNeck.dims=256; expected a list: \[256\]'),
        ('vicreg/digits', dict(optim_wrapper__optimizer__lr=(0, 1)), r'lr = \(0, 1\); expected one number'),
        ('vicreg/digits', dict(optim_wrapper__precision='fp16'), "precision = 'fp16'; expected float32"),
        ('vicreg/digits', dict(lr_scaling='lin'), "lr_scaling='lin' is unknown"),
        ('vicreg/digits', dict(sync_bn='maybe'), "sync_bn = 'maybe'; expected True or False"),
        ('sfrik/digits_L3', dict(model__head__kernel__weights=1), 'weights=1; expected a list'),
    ],
)  # fmt: skip
def test_what_training_refuses_at_its_first_step_the_dry_run_refuses(method, options, words):
    with pytest.raises(ConfigError, match=words):
        make_plan(digits(method, **options), world_size=1)


def test_the_image_size_of_a_transformer():
    vit = dict(
        _delete_=True, type='TIMMBackbone', model_name='vit_tiny_patch16_224', patch_size=8, depth=1, embed_dim=32,
        num_heads=2, in_channels=1, img_size=16,
    )  # fmt: skip
    assert make_plan(digits('vicreg/digits', model__backbone=vit), 1)
    with pytest.raises(ConfigError, match=r'The encoder, in the first step \(2 views of 16 x 16 px'):
        make_plan(digits('vicreg/digits', model__backbone={**vit, 'img_size': 32}), 1)


def test_small_crops_for_a_transformer():
    """One that can take several sizes is built for them; another is named, in the views or in the evaluation."""
    vit = dict(
        _delete_=True, type='TIMMBackbone', model_name='vit_tiny_patch16_224', patch_size=4, depth=1, embed_dim=32,
        num_heads=2, in_channels=1, img_size=16,
    )  # fmt: skip
    beit = {**vit, 'model_name': 'beit_base_patch16_224'}
    small = dict(train_dataloader__dataset__views=dict(small=dict(size=8, crop=dict(type='RandomResizedCrop'))))
    large = dict(evaluation__transform__crop=20)
    for sizes in (small, large):
        assert make_plan(digits('vicreg/digits', model__backbone=vit, **sizes), 1)
    with pytest.raises(ConfigError, match=r'The encoder, in .* 8 x 8 px: this network takes images of one size alone'):
        make_plan(digits('vicreg/digits', model__backbone=beit, **small), 1)
    with pytest.raises(ConfigError, match='^evaluation: .* 20 x 20 px: this network takes images of one size alone'):
        make_plan(digits('vicreg/digits', model__backbone=beit, **large), 1)


def test_weights_to_begin_with_are_tried(tmp_path):
    """An encoder for other images is resampled, one of another width is refused, and a file that is not here is passed over."""
    encoder = TIMMBackbone(
        'vit_tiny_patch16_224', img_size=64, patch_size=8, embed_dim=48, depth=2, num_heads=3, reg_tokens=2
    )
    torch.save(encoder.state_dict(), tmp_path / 'vit.pth')
    cfg = digits('sfrik/digits_vit', load_from=str(tmp_path / 'vit.pth'))
    text = ' '.join(dry_run(cfg, world_size=1, file=io.StringIO()).split())
    assert 'its encoder alone, 31/31 tensors' in text
    assert make_plan(cfg, 1).start.endswith('pos_embed resampled from 8 x 8 to 4 x 4. New: neck')
    with pytest.raises(ConfigError, match=r'^load_from: .* the model has cls_token in another shape, \(1, 1, 24\)'):
        make_plan(digits('sfrik/digits_vit', load_from=cfg.load_from, model__backbone__embed_dim=24), 1)
    assert not make_plan(digits('sfrik/digits_vit', load_from='elsewhere.pth'), 1).start


class Own(Head):
    """Reads values, in its weights and in its loss, as no tensor of the meta device can."""

    def __init__(self, width=None):
        super().__init__()
        self.layer = torch.nn.Linear(width, 4) if width else torch.nn.LazyLinear(4)
        self.largest = float(self.layer.weight.max()) if width else 0.5

    def loss(self, embeddings):
        z = self.layer(embeddings.online)
        near = torch.nonzero((z[0] @ z[1].T) > self.largest)
        return dict(loss_own=z.square().mean(), pairs=len(near), text=f'{z.mean():.3f}')


class PositionFirst(torch.nn.Module):
    """A parameter of four axes that is no convolution."""

    def __init__(self):
        super().__init__()
        self.out_dim = 8
        self.position = torch.nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.stem = torch.nn.Conv2d(1, 8, 3)

    def forward(self, x):
        return (self.stem(x) + self.position).mean((2, 3))


@pytest.mark.parametrize('width', [None, 256])
def test_parts_of_the_users_own_pass(width):
    cfg = digits('vicreg/digits')
    cfg.model = {**cfg.model, 'head': dict(type='OwnHead', width=width), 'backbone': dict(type='PositionFirst')}
    MODELS.register_module(name='OwnHead', module=Own, force=True)
    MODELS.register_module(module=PositionFirst, force=True)
    assert make_plan(cfg, world_size=1).parameters['backbone'] == 8 + 8 * 9 + 8


class OwnModel(torch.nn.Module):
    """Neither backbone nor neck, and a forward of its own."""

    def __init__(self, data_preprocessor):
        super().__init__()
        self.encoder = torch.nn.Linear(256, 8)

    def train_step(self, data, optim_wrapper): ...


class OwnViews(torch.utils.data.Dataset):
    def __init__(self, views):
        self.views = views


class AbsentSource:
    def __init__(self):
        raise RuntimeError('Dataset not found. You can use download=True')


def test_a_model_and_data_of_the_users_own_pass():
    MODELS.register_module(module=OwnModel, force=True)
    DATASETS.register_module(module=OwnViews, force=True)
    DATASETS.register_module(module=AbsentSource, force=True)
    cfg = digits('vicreg/digits')
    cfg.optim_wrapper.optimizer.pop('lr')  # the optimizer's own
    cfg.model = dict(type='OwnModel')
    cfg.train_dataloader.dataset = dict(type='OwnViews', views=dict(a=dict(size=16)), source=dict(type='AbsentSource'))
    text = dry_run(cfg, world_size=1, file=io.StringIO())
    assert '2,056' in text
    assert '0.0005 = 0.001 x 128 / 256' in text


def test_rows_of_all_processes_count_for_the_head():
    """16 rows of a process do not span 16 dimensions, 32 of two do."""
    cfg = digits('wmse/digits_2views', model__head__sub_batch_size=None, train_dataloader__batch_size=16)
    assert make_plan(cfg, world_size=2)
    with pytest.raises(ConfigError, match='Whitening 16 dimensions'):
        make_plan(cfg, world_size=1)


def test_more_prototypes_than_rows_are_unwise_not_wrong():
    with pytest.warns(UserWarning, match='3000 prototypes for 512 rows'):
        make_plan(load_config('configs/swav/r50.py'), world_size=8)


def test_a_key_that_is_in_no_name():
    cfg = digits('simsiam/digits')
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys=dict(predicter=dict(lr_mult=2)))
    with pytest.raises(
        ConfigError, match="'predicter' is in the name of no parameter that trains. Did you mean 'predictor'"
    ):
        make_plan(cfg, world_size=1)
    OPTIM_WRAPPER_CONSTRUCTORS.register_module(module=OwnConstructor, force=True)
    cfg.optim_wrapper.constructor = 'OwnConstructor'
    make_plan(cfg, world_size=1)


class OwnConstructor(DefaultOptimWrapperConstructor):
    """Whose keys may mean something else."""


def test_half_precision_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    cfg = digits('vicreg/digits', optim_wrapper__precision='float16')
    assert 'problem' in dry_run(cfg, file=io.StringIO())
    assert 'problem' not in dry_run(cfg, world_size=1, file=io.StringIO())


@pytest.mark.parametrize(
    'reduction, words',
    [
        ('element', "512 with 'element' = 2 with 'sample' at q = 256"),
        ('sample', "1.3107e+05 with 'element' = 512 with 'sample' at q = 256"),
    ],
)
def test_a_weight_is_printed_in_both_conventions(reduction, words):
    cfg = digits('kernels/digits_rbf', model__head__alignment_weight=512.0, model__head__reduction=reduction)
    assert words in dry_run(cfg, file=io.StringIO())
