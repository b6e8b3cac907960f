"""The published protocols, as their tables print them: effective batch and the rates that come out."""

from pathlib import Path

import pytest

from mmkernel.engine import load_config, lr_factor
from mmkernel.evaluation import TRANSFER_SETS, metric_of

FOLDER = Path(__file__).resolve().parents[1] / 'configs/benchmarks'
LINEAR = {  # rate after scaling, decay, effective batch on 8 processes, epochs
    'sfrik': (0.4, 1e-6, 256, 100),
    'vicreg': (0.02, 1e-6, 256, 100),
    'barlow_twins': (0.3, 1e-6, 256, 100),
    'swav': (0.3, 1e-6, 256, 100),
    'moco': (30.0, 0.0, 256, 100),
    'moco_v3': (0.4, 0.0, 1024, 90),
    'moco_v3_vit': (12.0, 0.0, 1024, 90),  # CONFIG.md of facebookresearch/moco-v3: --lr=3
    'simsiam': (1.6, 0.0, 4096, 90),
    'simclr': (1.6, 1e-6, 4096, 90),
    'byol': (0.8, 0.0, 1024, 80),
}
PER_STEP = dict(type='WarmupCosineLR', warmup_epochs=0, end_factor=0.0)
PLACES = {  # rate, decay, epochs, when it is divided by ten; batch 256
    'places205': (0.01, 1e-4, 28, [7, 14, 21]),  # resnet50_mhead_8xb32-steplr-28e_places205.py of mmselfsup
    'places205_vicreg': (0.003, 1e-4, 28, [4, 8, 12]),  # Bardes et al., ICLR 2022, appendix C.3
    'places205_barlow_twins': (0.01, 5e-4, 14, [4, 8, 12]),  # Zbontar et al., ICML 2021, appendix C.1
    'inaturalist18': (0.005, 1e-4, 84, [24, 48, 72]),  # Bardes et al., appendix C.3
}
SEMI = {  # rates of backbone and head
    'sfrik_1': (0.004, 1.0),
    'sfrik_10': (0.02, 0.1),
    'vicreg_1': (0.03, 0.08),
    'vicreg_10': (0.01, 0.1),
    'barlow_twins_1': (0.002, 0.5),  # appendix B.2, as is the schedule
    'barlow_twins_10': (0.002, 0.5),
    'swav_1': (0.02, 5.0),
    'swav_10': (0.01, 0.2),
}


@pytest.mark.parametrize('method', LINEAR)
def test_linear_protocols(method):
    cfg = load_config(FOLDER / f'linear_{method}.py')
    batch = 8 * cfg.train_dataloader.batch_size
    optimizer = cfg.optim_wrapper.optimizer
    rate = optimizer.lr * lr_factor(cfg.lr_scaling, batch)
    assert (pytest.approx(rate), optimizer.weight_decay, batch, cfg.train_cfg.max_epochs) == LINEAR[method]
    assert cfg.model.frozen is True
    assert list(cfg.train_dataloader.dataset.views.only.ops) == ['flip']
    assert cfg.evaluation.transform.resize == 256


@pytest.mark.parametrize('method, interpolation, scheduler, std', [
    ('simclr', 'bicubic', PER_STEP, 0.0),  # data_util.py and model_util.py of google-research/simclr
    ('byol', 'bicubic', PER_STEP, 2048**-0.5),  # dataset.py, schedules.py; hk.Linear draws N(0, 1 / width)
    ('moco_v3', 'bilinear', dict(type='CosineAnnealingLR'), 0.01),  # main_lincls.py: per epoch
])  # fmt: skip
def test_pixels_schedule_and_first_weights_of_linear_protocols(method, interpolation, scheduler, std):
    cfg = load_config(FOLDER / f'linear_{method}.py')
    assert cfg.train_dataloader.dataset.views.only.crop.interpolation == interpolation
    assert cfg.evaluation.transform.interpolation == interpolation
    assert cfg.param_scheduler == scheduler
    assert cfg.model.get('head_std', 0.01) == std


@pytest.mark.parametrize('name', PLACES)
def test_linear_protocols_of_other_sets(name):
    cfg = load_config(FOLDER / f'linear_{name}.py')
    assert 8 * cfg.train_dataloader.batch_size == 256
    optimizer, steps = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    assert (optimizer.lr, optimizer.weight_decay, cfg.train_cfg.max_epochs, steps.milestones) == PLACES[name]
    assert (optimizer.nesterov, steps.gamma, cfg.lr_scaling, cfg.model.frozen) == (True, 0.1, None, True)
    assert cfg.model.head_norm == dict(type='BN', affine=False)  # MultiClsHead of mmselfsup, channel_bn of VISSL


@pytest.mark.parametrize('method', SEMI)
def test_semi_supervised_protocols(method):
    cfg = load_config(FOLDER / f'semi_{method}percent.py')
    wrapper = cfg.optim_wrapper
    assert (wrapper.paramwise_cfg.backbone.lr, wrapper.optimizer.lr) == SEMI[method]
    assert (8 * cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs, cfg.model.frozen) == (256, 20, False)
    source = cfg.train_dataloader.dataset.source
    assert (source.type, source.names) == ('Subset', f'data/imagenet/{method.split("_")[-1]}percent.txt')
    assert wrapper.optimizer.weight_decay == 0
    steps = (cfg.param_scheduler.get('milestones'), cfg.param_scheduler.get('gamma'))
    assert (steps == ([12, 16], 0.2)) is method.startswith(('swav', 'barlow'))
    assert cfg.sync_bn is not method.startswith(
        ('vicreg', 'barlow')
    )  # their evaluate.py converts nothing; SFRIK: one GPU
    assert cfg.model.get('head_std', 0.01) == (
        None if method.startswith('swav') else 0.01
    )  # eval_semisup.py: nn.Linear


@pytest.mark.parametrize('percent, epochs', [(1, 60), (10, 30)])
def test_semi_supervised_protocol_of_one_rate(percent, epochs):
    cfg = load_config(FOLDER / f'semi_simclr_{percent}percent.py')
    batch, wrapper = 8 * cfg.train_dataloader.batch_size, cfg.optim_wrapper
    assert (batch, wrapper.optimizer.lr * lr_factor(cfg.lr_scaling, batch)) == (4096, pytest.approx(0.8))
    assert wrapper.optimizer == dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0, nesterov=True)
    assert 'paramwise_cfg' not in wrapper  # backbone and head alike
    assert (cfg.train_cfg.max_epochs, cfg.model.frozen) == (epochs, False)
    assert cfg.param_scheduler == PER_STEP  # model_util.py of google-research/simclr
    assert cfg.model.head_std == 0  # its zero_init_logits_layer
    assert (
        cfg.train_dataloader.dataset.views.only.crop.interpolation
        == cfg.evaluation.transform.interpolation
        == 'bicubic'
    )
    assert list(cfg.train_dataloader.dataset.views.only.ops) == ['flip']
    assert cfg.train_dataloader.dataset.source.names == f'data/imagenet/{percent}percent.txt'


def test_every_set_of_the_transfer_suite_is_fine_tuned_too():
    for name, one in TRANSFER_SETS.items():
        cfg = load_config(FOLDER / f'finetune_{name}.py')
        assert cfg.evaluation.test == {**cfg.train_dataloader.dataset.source, 'split': 'test'}
        assert cfg.train_dataloader.dataset.source == dict(type=one.source, root=f'data/{name}', split=one.train)
        assert (cfg.model.get('objective') == dict(type='SeveralClasses')) is (one.metric == 'map11')
        assert metric_of(cfg) == one.metric


@pytest.mark.parametrize('path', sorted(FOLDER.glob('finetune_*.py')), ids=lambda path: path.stem)
def test_fine_tuning_takes_twenty_thousand_steps(path):
    cfg = load_config(path)
    from mmkernel.registry import DATASETS

    source = dict(cfg.train_dataloader.dataset.source)
    images = DATASETS.get(source.pop('type')).expected_length(**source)
    if images:
        steps = -(-images // 256)
        assert 20_000 <= steps * cfg.train_cfg.max_epochs < 20_000 + steps
        assert cfg.model.norm_momentum == pytest.approx(max(1 - 10 / steps, 0.9), abs=5e-4)
    assert cfg.evaluation.test.split == 'test'
    assert cfg.evaluation.transform == dict(type='CenterView', resize=256, crop=224, interpolation='bicubic')
