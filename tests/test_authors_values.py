"""The values of the authors' code for each official pretraining recipe, so that none drifts in silence.

A comment names the source of its row: a file of the authors' repository, or a place in the paper. Protocols of evaluation:
test_benchmark_configs.py. Where a recipe differs on purpose its docstring says so.
"""

from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope
from test_configs import launched_processes

from mmkernel.engine import load_config, lr_factor
from mmkernel.engine.learning_rates import built_wrapper
from mmkernel.engine.schedule import build_schedules, unmoved
from mmkernel.registry import MODELS

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
TO_A_THOUSANDTH, TO_ZERO = ('WarmupCosineLR', 10, 0.0, 0.001), ('WarmupCosineLR', 10, 0.0, 0.0)
PER_EPOCH = ('CosineAnnealingLR',)
# optimizer, peak rate, decay, images per step, epochs, schedule: warm-up in epochs, its start and the end as parts of the peak
TRAINING = {
    # README and main_ssl_methods.py of valeoai/sfrik
    'sfrik/r50_L3_q32768': ('LARS', 3.2, 1e-6, 2048, 200, TO_A_THOUSANDTH),
    'sfrik/r18_in20_L3_q8192': ('LARS', 9.6, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    'sfrik/r18_in20_L3_q8192_crops_2p6': ('LARS', 9.6, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    'sfrik/r18_in20_L3_q8192_crops_1p2p5': ('LARS', 9.6, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    'kernels/r18_in20_rbf_q8192': ('LARS', 8.0, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    'vicreg/r18_in20_q8192': ('LARS', 5.6, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    'simclr/r18_in20_q8192': ('LARS', 6.4, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    # README and main_vicreg.py of facebookresearch/vicreg
    'vicreg/r50_1000e': ('LARS', 1.6, 1e-6, 2048, 1000, TO_A_THOUSANDTH),
    'vicreg/r50_100e': ('LARS', 0.6, 1e-6, 512, 100, TO_A_THOUSANDTH),
    # README and main.py of facebookresearch/barlowtwins: the released run
    'barlow_twins/r50': ('LARS', 1.6, 1e-6, 2048, 1000, TO_A_THOUSANDTH),
    # run.py of google-research/simclr; decay and epochs: the paper
    'simclr/r50': ('LARS', 4.8, 1e-6, 4096, 1000, TO_ZERO),
    # configs/byol.py of deepmind-research/byol
    'byol/r50': ('LARS', 3.2, 1.5e-6, 4096, 1000, TO_ZERO),
    # README and main_moco.py of facebookresearch/moco
    'moco/r50_v1': ('SGD', 0.03, 1e-4, 256, 200, ('MultiStepLR', [120, 160], 0.1)),
    'moco/r50_v2': ('SGD', 0.03, 1e-4, 256, 200, PER_EPOCH),
    # CONFIG.md of facebookresearch/moco-v3
    'moco/r50_v3': ('LARS', 4.8, 1.5e-6, 4096, 1000, TO_ZERO),
    'moco/vit_small_v3': ('AdamW', 2.4e-3, 0.1, 4096, 300, ('WarmupCosineLR', 40, 0.0, 0.0)),
    'moco/vit_base_v3': ('AdamW', 2.4e-3, 0.1, 4096, 300, ('WarmupCosineLR', 40, 0.0, 0.0)),
    # README and main_simsiam.py of facebookresearch/simsiam
    'simsiam/r50': ('SGD', 0.1, 1e-4, 512, 100, PER_EPOCH),
    # scripts of facebookresearch/swav: swav_800ep, 400ep_2x224, 200ep_bs256, deepclusterv2_*; 2x160: the paper, batch 256
    'swav/r50': ('LARS', 4.8, 1e-6, 4096, 800, ('WarmupCosineLR', 10, 0.0625, 0.001)),
    'swav/r50_2x224': ('LARS', 4.8, 1e-6, 4096, 400, ('WarmupCosineLR', 10, 0.0625, 0.001)),
    'swav/r50_256': ('LARS', 0.6, 1e-6, 256, 200, ('WarmupCosineLR', 0, 0.0625, 0.001)),
    'deepcluster/r50_v2_800e': ('LARS', 4.8, 1e-6, 4096, 800, ('WarmupCosineLR', 10, 0.0625, 0.001)),
    'deepcluster/r50_v2_400e_2x224': ('LARS', 4.8, 1e-6, 4096, 400, ('WarmupCosineLR', 10, 0.0625, 0.001)),
    'deepcluster/r50_v2_400e_2x160_4x96': ('LARS', 4.8, 1e-6, 4096, 400, ('WarmupCosineLR', 10, 0.0625, 0.001)),
    # main.py of facebookresearch/deepcluster
    'deepcluster/r50_v1': ('SGD', 0.05, 1e-5, 256, 200, ('WarmupCosineLR', 0, 0.0, 1.0)),
    # README, cfg.py and train.py of htdt/self-supervised
    'wmse/r18_in100_2views': ('Adam', 2e-3, 1e-6, 512, 240, ('MultiStepLR', [190, 215], 0.2)),
    'wmse/r18_in100_4views': ('Adam', 2e-3, 1e-6, 256, 240, ('MultiStepLR', [190, 215], 0.2)),
    # MINIMAL.md of rbalestr-lab/lejepa; configs of HaiyuWu/visreg; imagenet/ of the repository of MMCR
    'lejepa/vit_small_imagenette': ('AdamW', 2e-3, 0.05, 256, 800, ('WarmupCosineLR', 1, 0.01, 0.5)),
    'visreg/vit_base': ('AdamW', 9e-4, 0.05, 128, 400, ('WarmupCosineLR', 5, 0.001, 0.001)),
    'mmcr/r50': ('LARS', 4.8, 1e-6, 2048, 100, TO_A_THOUSANDTH),
    # configs of jhaochenz96/spectral_contrastive_learning, scripts/pretrain/cifar of OFSkean/FroSSL
    'spectral/r50': ('SGD', 0.075, 1e-4, 384, 100, ('WarmupCosineLR', 0, 0.0, 0.0)),
    'spectral/cifar10': ('SGD', 0.06, 5e-4, 512, 800, ('WarmupCosineLR', 10, 0.0, 0.0)),
    'frossl/cifar10': ('LARS', 0.3, 1e-4, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    # scripts/pretrain/cifar of vturrisi/solo-learn
    'simclr/cifar10': ('LARS', 0.4, 1e-4, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'barlow_twins/cifar10': ('LARS', 0.3, 1e-4, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'byol/cifar10': ('LARS', 1.0, 1e-5, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'moco/cifar10_v2': ('SGD', 0.3, 1e-4, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'moco/cifar10_v3': ('LARS', 0.3, 1e-6, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'simsiam/cifar10': ('SGD', 0.5, 1e-5, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'swav/cifar10': ('LARS', 0.6, 1e-6, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
    'vicreg/cifar10': ('LARS', 0.3, 1e-4, 256, 1000, ('WarmupCosineLR', 10, 1e-4, 0.0)),
}

# A view: how many, pixels, share of the area, resampling, jitter (4 strengths, how often), how often grey, blurred, solarized
SYMMETRIC = (0.8, 0.8, 0.8, 0.2, 0.8)
MODERATE = (0.4, 0.4, 0.4, 0.1, 0.8)
ASYMMETRIC = (0.4, 0.4, 0.2, 0.1, 0.8)


def pair(size, scale, pixels, jitter, blur, solarize=(0, 0)):
    views = [(1, size, (scale, 1.0), pixels, jitter, 0.2, *extra) for extra in zip(blur, solarize, strict=True)]
    return dict(first=views[0], second=views[1])


def crops(size, scale, small=None):
    large = dict(large=(2, size, (scale, 1.0), 'bilinear', SYMMETRIC, 0.2, 0.5, 0))
    return dict(large, small=(small, 96, (0.05, 0.14), 'bilinear', SYMMETRIC, 0.2, 0.5, 0)) if small else large


PUBLISHED_PAIR = pair(224, 0.08, 'bicubic', ASYMMETRIC, (1.0, 0.1), (0, 0.2))
CIFAR_STRONG = pair(32, 0.08, 'bicubic', SYMMETRIC, (0.5, 0.5))
CIFAR_WEAK = pair(32, 0.08, 'bicubic', MODERATE, (0.5, 0.5))
CIFAR_PAIR = pair(32, 0.08, 'bicubic', ASYMMETRIC, (0, 0), (0, 0.2))
VIEWS = {
    # src/sfrik/augmentations.py, augmentations.py of vicreg, main.py of barlowtwins, utils/dataset.py of byol: the same
    **dict.fromkeys(('sfrik/r50_L3_q32768', 'sfrik/r18_in20_L3_q8192', 'kernels/r18_in20_rbf_q8192'), PUBLISHED_PAIR),
    **dict.fromkeys(('vicreg/r50_1000e', 'vicreg/r18_in20_q8192', 'simclr/r18_in20_q8192'), PUBLISHED_PAIR),
    **dict.fromkeys(('barlow_twins/r50', 'byol/r50'), PUBLISHED_PAIR),
    'simclr/r50': pair(224, 0.08, 'bicubic', SYMMETRIC, (0.5, 0.5)),  # data_util.py
    'moco/r50_v1': pair(224, 0.2, 'bilinear', (0.4, 0.4, 0.4, 0.4, 1.0), (0, 0)),  # main_moco.py
    'moco/r50_v2': pair(224, 0.2, 'bilinear', MODERATE, (0.5, 0.5)),  # main_moco.py --aug-plus
    'simsiam/r50': pair(224, 0.2, 'bilinear', MODERATE, (0.5, 0.5)),  # main_simsiam.py
    'moco/r50_v3': pair(224, 0.2, 'bilinear', ASYMMETRIC, (1.0, 0.1), (0, 0.2)),  # main_moco.py --crop-min=.2
    'moco/vit_small_v3': pair(224, 0.08, 'bilinear', ASYMMETRIC, (1.0, 0.1), (0, 0.2)),
    # src/multicropdataset.py and scripts of swav; src/sfrik/augmentations.py
    **dict.fromkeys(('swav/r50', 'swav/r50_256', 'deepcluster/r50_v2_800e'), crops(224, 0.14, 6)),
    **dict.fromkeys(('swav/r50_2x224', 'deepcluster/r50_v2_400e_2x224'), crops(224, 0.08)),
    **dict.fromkeys(('swav/r50_256_2x160_4x96', 'deepcluster/r50_v2_400e_2x160_4x96'), crops(160, 0.08, 4)),
    'sfrik/r18_in20_L3_q8192_crops_2p6': crops(224, 0.14, 6),
    'wmse/r18_in100_2views': pair(224, 0.08, 'bicubic', SYMMETRIC, (0.5, 0.5)),  # datasets/transforms.py
    # scripts/pretrain/cifar/augmentations of solo-learn
    **dict.fromkeys(('simclr/cifar10', 'swav/cifar10', 'deepcluster/cifar10_v2'), CIFAR_STRONG),
    **dict.fromkeys(('moco/cifar10_v2', 'simsiam/cifar10'), CIFAR_WEAK),
    **dict.fromkeys(('barlow_twins/cifar10', 'byol/cifar10', 'moco/cifar10_v3'), CIFAR_PAIR),
    'frossl/cifar10': pair(32, 0.08, 'bicubic', MODERATE, (0, 0)),  # the same file in OFSkean/FroSSL has no blur
    'spectral/cifar10': pair(32, 0.2, 'bilinear', MODERATE, (0, 0)),  # augmentations/simsiam_aug.py of jhaochenz96
    'spectral/r50': pair(224, 0.2, 'bilinear', MODERATE, (0.5, 0.5)),
    'vicreg/cifar10': pair(32, 0.2, 'bicubic', ASYMMETRIC, (0, 0), (0.1, 0.1)),
}
WIDE = {'neck.dims': (8192, 8192, 8192)}
SFRIK = {'head.kernel.weights': (1, 40, 40), 'head.reduction': 'element'}
SWAV = {'neck.dims': (2048, 128), 'head.temperature': 0.1, 'head.epsilon': 0.05, 'head.iterations': 3}
SWAV |= {'head.num_prototypes': 3000}
CLUSTERS = {'neck.dims': (2048, 128), 'head.temperature': 0.1, 'head.num_clusters': (3000, 3000, 3000)}
PARTS = {  # of the model; sources as in TRAINING
    'sfrik/r50_L3_q32768': {'neck.dims': (8192, 8192, 32768), 'head.alignment_weight': 40000, **SFRIK},
    'sfrik/r18_in20_L3_q8192': {**WIDE, 'head.alignment_weight': 4000, **SFRIK},
    'sfrik/r18_in20_L3_q8192_crops_2p6': {**WIDE, 'head.alignment_weight': 4000, 'head.regularize': 'target', **SFRIK},
    'sfrik/r18_in20_L3_q8192_crops_1p2p5': {
        **WIDE,
        'head.alignment_weight': 4000,
        'head.regularize': 'online',
        **SFRIK,
    },
    'kernels/r18_in20_rbf_q8192': {**WIDE, 'head.alignment_weight': 3000, 'head.kernel.scale': 2.5},
    'simclr/r18_in20_q8192': {**WIDE, 'head.temperature': 0.15},
    'vicreg/r18_in20_q8192': {
        **WIDE,
        'head.invariance_weight': 10,
        'head.variance_weight': 10,
        'head.covariance_weight': 1,
    },
    'vicreg/r50_1000e': {**WIDE, 'head.invariance_weight': 25, 'head.variance_weight': 25, 'head.covariance_weight': 1},
    'barlow_twins/r50': {**WIDE, 'neck.bias': False, 'head.off_diagonal_weight': 0.0051},
    # objective.py: loss_a + loss_b, each a mean over n; model_util.py: the last norm has no offset
    'simclr/r50': {'neck.dims': (2048, 128), 'neck.last_norm': 'ScaledBN', 'head.temperature': 0.1, 'head.weight': 2},
    'byol/r50': {'neck.dims': (4096, 256), 'predictor.dims': (4096, 256), 'head.weight': 2},
    'moco/r50_v1': {'neck.dims': (128,), 'head.temperature': 0.07, 'head.queue.length': 65536},
    'moco/r50_v2': {'neck.dims': (2048, 128), 'neck.norm': None, 'head.temperature': 0.2, 'head.queue.length': 65536},
    'moco/r50_v3': {'neck.dims': (4096, 256), 'predictor.dims': (4096, 256), 'head.temperature': 1, 'head.weight': 4},
    'moco/vit_small_v3': {'neck.dims': (4096, 4096, 256), 'predictor.dims': (4096, 256), 'head.temperature': 0.2},
    'simsiam/r50': {
        'neck.dims': (2048, 2048, 2048),
        'predictor.dims': (512, 2048),
        'backbone.zero_init_residual': True,
    },
    **dict.fromkeys(('swav/r50', 'swav/r50_2x224'), SWAV),
    'swav/r50_256': {**SWAV, 'head.queue_length': 3840},
    **dict.fromkeys(('deepcluster/r50_v2_800e', 'deepcluster/r50_v2_400e_2x224'), CLUSTERS),
    'lejepa/vit_small_imagenette': {
        'neck.dims': (2048, 2048, 16),
        'head.num_slices': 256,
        'head.normality_weight': 0.02,
    },
    'visreg/vit_base': {'neck.dims': (2048, 2048, 256), 'head.num_slices': 4096, 'head.normality_weight': 0.9},
    'mmcr/r50': {'neck.dims': (8192, 8192, 512)},
    'spectral/r50': {**WIDE, 'head.mu': 10},
    'spectral/cifar10': {'neck.dims': (2048, 1000), 'head.mu': 1},
    'deepcluster/r50_v1': {'head.num_clusters': (10000,)},
    'wmse/r18_in100_2views': {'neck.dims': (1024, 128), 'head.sub_batch_size': 256},
    'simclr/cifar10': {'neck.dims': (2048, 256), 'neck.norm': None, 'head.temperature': 0.2},
    'barlow_twins/cifar10': {'neck.dims': (2048, 2048, 2048), 'head.off_diagonal_weight': 0.0051, 'head.scale': 0.1},
    'moco/cifar10_v2': {'neck.dims': (2048, 256), 'head.temperature': 0.2, 'head.queue.length': 32768},
}
KEPT = {  # by the momentum encoder, first and last step; moco/builder.py, configs/byol.py, CONFIG.md of moco-v3, solo-learn
    **dict.fromkeys(('moco/r50_v1', 'moco/r50_v2'), (0.999, 0.999)),
    **dict.fromkeys(('moco/r50_v3', 'byol/r50'), (0.996, 1.0)),
    **dict.fromkeys(('moco/vit_small_v3', 'byol/cifar10', 'moco/cifar10_v3'), (0.99, 1.0)),
    'moco/cifar10_v2': (0.99, 0.999),
    'mmcr/r50': (0.99, 0.99),
}


def config(name):
    return load_config(FOLDER / f'{name}.py')


@pytest.mark.parametrize('name', TRAINING)
def test_optimizer_and_schedule(name):
    cfg = config(name)
    optimizer, last = cfg.optim_wrapper.optimizer, cfg.param_scheduler
    batch = cfg.train_dataloader.batch_size * launched_processes(FOLDER / f'{name}.py')
    peak = optimizer.lr * lr_factor(cfg.lr_scaling, batch)
    last = last[-1] if isinstance(last, list) else last
    keys = dict(WarmupCosineLR=('warmup_epochs', 'start_factor', 'end_factor'), MultiStepLR=('milestones', 'gamma'))
    schedule = (last.type, *(last.get(key, 0.0) for key in keys.get(last.type, ())))
    found = (optimizer.type, pytest.approx(peak), optimizer.weight_decay, batch, cfg.train_cfg.max_epochs, schedule)
    assert found == TRAINING[name]
    assert optimizer.get('momentum') == (None if optimizer.type.startswith('Adam') else 0.9)


@pytest.mark.parametrize('name', VIEWS)
def test_views(name):
    found = {}
    for key, view in config(name).train_dataloader.dataset.views.items():
        if view is None:
            continue
        ops, crop = view.ops, view.crop
        jitter = tuple(ops.jitter[word] for word in ('brightness', 'contrast', 'saturation', 'hue', 'probability'))
        often = [(ops.get(word) or {}).get('probability', 0) for word in ('gray', 'blur', 'solarize')]
        found[key] = (view.count, view.size, tuple(crop.scale), crop.interpolation, jitter, *often)
        assert ops.flip.probability == 0.5
        assert not ops.get('blur') or tuple(ops.blur.sigma) == (0.1, 2.0)
    assert found == VIEWS[name]


@pytest.mark.parametrize('name', PARTS)
def test_parts_of_the_model(name):
    model = config(name).model
    for place, value in PARTS[name].items():
        part, _, key = place.rpartition('.')
        assert reduce(getitem, part.split('.'), model)[key] == value, place


@pytest.mark.parametrize('name', KEPT)
def test_momentum_encoders(name):
    hook = config(name).default_hooks.momentum
    end = hook.momentum if hook.schedule == 'constant' else hook.end_momentum
    assert (hook.momentum, end) == KEPT[name]


def groups_of(name):
    """{parameter: (rate, group)} of the optimizer that a config builds, and the optimizer."""
    cfg = config(name)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    with DefaultScope.overwrite_default_scope('mmkernel'):
        optimizer = built_wrapper(cfg.optim_wrapper, model).optimizer
    names = {id(p): key for key, p in model.named_parameters()}
    return cfg, optimizer, {names[id(p)]: group for group in optimizer.param_groups for p in group['params']}


@pytest.mark.parametrize('name', ['simsiam/r50', 'moco/r50_v2'])
def test_the_rate_follows_the_cosine_once_an_epoch(name):
    """adjust_learning_rate of main_simsiam.py and main_moco.py; fix_pred_lr of the former."""
    cfg, optimizer, groups = groups_of(name)
    epochs, peak = cfg.train_cfg.max_epochs, cfg.optim_wrapper.optimizer.lr
    (schedule,) = build_schedules(cfg.param_scheduler, optimizer, epochs, 1000)
    assert schedule.by_epoch
    for epoch in (1, 2, 3):
        optimizer.step()
        with unmoved(optimizer):
            schedule.step()
        expected = peak * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * epoch / epochs)).item())
        assert groups['backbone.conv1.weight']['lr'] == pytest.approx(expected, rel=1e-6)
        for key in (key for key in groups if key.startswith('predictor')):
            assert groups[key]['lr'] == peak
