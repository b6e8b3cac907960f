"""What --cfg-options adds to a config, by one option each; a mistyped place is still an error that names the right one."""

import pytest

from mmkernel.cli import main
from mmkernel.cli.options import options_of
from mmkernel.engine import ConfigError, load_config
from mmkernel.engine.allowed_keys import at
from mmkernel.engine.config_option import is_slip

CONFIG = 'configs/sfrik/digits_L3.py'
FREEZE = "dict(type='FreezeHook', layers={'backbone.conv1': 'all'})"
VIEW = "dict(count=1, size=16, crop=dict(type='RandomResizedCrop', scale=(0.5, 1.0)))"
OPS = 'train_dataloader.dataset.views.both.ops'

# What is added -> a place of the config that has it, and the value there.
ADDED = {
    f'default_hooks.new={FREEZE}': ('default_hooks.new.type', 'FreezeHook'),
    'default_hooks.probe.type=OnlineProbeHook': ('default_hooks.probe.type', 'OnlineProbeHook'),
    f'custom_hooks=[{FREEZE}]': ('custom_hooks.0.type', 'FreezeHook'),
    f'custom_hooks.0={FREEZE}': ('custom_hooks.0.type', 'FreezeHook'),
    f'custom_hooks.+={FREEZE}': ('custom_hooks.0.type', 'FreezeHook'),
    f"{OPS}.blur2=dict(type='GaussianBlur', sigma=(0.1, 2.0))": (f'{OPS}.blur2.type', 'GaussianBlur'),
    f'{OPS}.solarize.type=Solarize': (f'{OPS}.solarize.type', 'Solarize'),
    f'train_dataloader.dataset.views.third={VIEW}': ('train_dataloader.dataset.views.third.size', 16),
    "model.head.kernel=dict(type='RBFKernel', scale=2.0)": ('model.head.kernel', dict(type='RBFKernel', scale=2.0)),
    'model.head.kernel.type=LaplaceKernel': ('model.head.kernel', dict(type='LaplaceKernel')),
    "model.head=dict(type='InfoNCEHead', temperature=0.2)": ('model.head', dict(type='InfoNCEHead', temperature=0.2)),
    "model.predictor=dict(type='MLPNeck', dims=(64, 256))": ('model.predictor.dims', (64, 256)),
    'model.target.type=StopGradientTarget': ('model.target.type', 'StopGradientTarget'),
    'visualizer.vis_backends.tensorboard.type=TensorboardVisBackend': (
        'visualizer.vis_backends.tensorboard.type', 'TensorboardVisBackend'),
    'optim_wrapper.clip_grad.max_norm=1.0': ('optim_wrapper.clip_grad.max_norm', 1.0),
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.1': (
        'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult', 0.1),
    "optim_wrapper.optimizer=dict(type='AdamW')": ('optim_wrapper.optimizer', dict(type='AdamW', lr=0.1, weight_decay=1e-4)),
    'log_processor.window_size=5': ('log_processor.window_size', 5),
    'lr_scaling=sqrt': ('lr_scaling', 'sqrt'),
}  # fmt: skip
SLOWLY = ['solarize', 'third', 'InfoNCEHead', 'predictor', 'target', 'OnlineProbe', 'window_size', 'lr_scaling', '.0=']
WRONG = {
    "default_hooks.chekpoint=dict(type='CheckpointHook')": "Did you mean 'checkpoint'",
    'default_hooks.new.interval=5': r"A new one comes with its type: default_hooks.new=dict\(type='...'\)",
    'default_hooks.new.type=FrezeHook': "Did you mean 'FreezeHook'",
    f'{OPS}.jiter.type=ColorJitter': "Did you mean 'jitter'",
    f"{OPS}.new=dict(type='GaussianBlr')": "Did you mean 'GaussianBlur'",
    'train_dataloader.dataset.views.boht.size=16': "Did you mean 'both'",
    'train_dataloader.dataset.views.third.size=16': r'A new one is a dict: train_dataloader.dataset.views.third=dict\(size',
    'model.haed.kernel.type=RBFKernel': "Did you mean 'head'",
    "model.head.kernel=dict(type='RBFKernel', scal=2.0)": "unknown keyword 'scal'. Did you mean 'scale'",
    'model.head.kernl.type=RBFKernel': "Did you mean 'kernel'",
    'optim_wrapper.clip_grd.max_norm=1.0': "Did you mean 'clip_grad'",
    'log_procesor.window_size=5': "Did you mean 'log_processor'",
    'visualizer.vis_backends.tabel.type=CSVBackend': "Did you mean 'table'",
    'visualizer.vis_backends.tensorboard.type=TensorbordVisBackend': "Did you mean 'TensorboardVisBackend'",
    'custom_hooks.0.interval=5': "no 'custom_hooks' to change a part of. Give the whole",
}


def is_slow(option):
    return [pytest.mark.slow] if any(word in option for word in SLOWLY) else []


@pytest.mark.parametrize('option', [pytest.param(o, marks=is_slow(o), id=o.partition('=')[0]) for o in ADDED])
def test_an_addition_trains(option, tmp_path):
    if 'tensorboard' in option:
        pytest.importorskip('tensorboard')
    few = ['train_cfg.max_epochs=1', 'train_dataloader.num_batch_per_epoch=1', 'train_dataloader.batch_size=32']
    few += ['param_scheduler.warmup_epochs=0', 'log_level=ERROR', 'default_hooks.knn=None', 'default_hooks.sheet=None']
    main(['train', CONFIG, '--work-dir', str(tmp_path), '--cfg-options', *few, option])
    place, value = ADDED[option]
    kept = load_config(tmp_path / 'config.py')
    place, _, below = place.partition('.0.') if '.0.' in place else place.partition('.2.')
    found = at(kept._cfg_dict, place)
    found = found[-1][below] if below else found
    assert (dict(found) if isinstance(found, dict) else found) == value
    assert (tmp_path / 'epoch_1.pth').is_file()


@pytest.mark.parametrize('option', WRONG)
def test_a_mistyped_place_names_the_right_one(option):
    with pytest.raises(ConfigError, match=WRONG[option]):
        load_config(CONFIG, options_of([option]))


def test_several_options_make_one_addition():
    options = [
        'default_hooks.ema.momentum=0.9',
        'model.target.type=MomentumTarget',
        'default_hooks.ema.type=MomentumUpdateHook',
    ]
    cfg = load_config(CONFIG, options_of(options))
    assert dict(cfg.default_hooks.ema) == dict(type='MomentumUpdateHook', momentum=0.9)


def test_names_that_are_meant():
    assert not any(
        is_slip(*names) for names in [('blur2', 'blur'), ('view2', 'view1'), ('blur_again', 'blur'), ('ema', 'knn')]
    )
    assert is_slip('chekpoint', 'checkpoint')
    assert is_slip('gary', 'gray')


def test_a_module_of_ones_own_comes_with_an_option(tmp_path, monkeypatch):
    (tmp_path / 'hook_of_an_option.py').write_text(
        'from mmengine.hooks import Hook\nfrom mmkernel.registry import HOOKS\n\n\n'
        '@HOOKS.register_module(force=True)\nclass HookOfAnOption(Hook):\n    pass\n'
    )
    monkeypatch.chdir(tmp_path)
    options = ["custom_imports.imports=['hook_of_an_option']", 'default_hooks.mine.type=HookOfAnOption']
    cfg = load_config(CONFIG, options_of(options))
    assert str(tmp_path) in cfg.import_folders
