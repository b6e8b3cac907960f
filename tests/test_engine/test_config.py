"""Configs: what is refused, with which words, and how single keys are overridden."""

from pathlib import Path

import pytest

from mmkernel.checks import slips
from mmkernel.engine import ConfigError, load_config

CONFIG = Path(__file__).parent / 'tiny_config.py'

MODULE = """
from mmkernel.registry import HOOKS
from mmengine.hooks import Hook


@HOOKS.register_module(force=True)
class HookBesideTheConfig(Hook):
    def __init__(self, level=1):
        self.level = level
"""


SCHEDULE = """
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim import _ParamScheduler
from mmkernel.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module(force=True)
class ScheduleBesideTheConfig(LRSchedulerMixin, _ParamScheduler):
    def __init__(self, optimizer, gamma, *args, **kwargs):
        super().__init__(optimizer, *args, **kwargs)
"""


@pytest.fixture
def write(tmp_path):
    """write(text) -> path of a config that inherits the tiny one."""

    def write_config(text, name='child.py'):
        path = tmp_path / name
        path.write_text(f'_base_ = [{str(CONFIG)!r}]\n{text}\n')
        return path

    return write_config


def options_error(options):
    with pytest.raises(ConfigError) as error:
        load_config(CONFIG, options)
    return str(error.value)


def test_the_tiny_config_is_right():
    cfg = load_config(CONFIG)
    assert cfg.optim_wrapper.optimizer.type == 'LARS'
    assert cfg.param_scheduler.end_factor == 0.001


@pytest.mark.parametrize(
    'text, words',
    [
        ("model = dict(type='TinyModl')", ["model: type 'TinyModl'", 'TinyModel']),
        ('model = dict(witdh=3)', ["model: TinyModel got an unknown keyword 'witdh'", "'width'"]),
        ("optim_wrapper = dict(optimizer=dict(type='LARSS'))", ['optim_wrapper.optimizer', 'LARS']),
        ('optim_wrapper = dict(optimizer=dict(momentun=.9))', ['optim_wrapper.optimizer', "'momentum'"]),
        (
            "optim_wrapper = dict(optimizer=dict(type='SGD', lr=1.0))",
            ["unknown keyword 'trust_coefficient'", '_delete_=True'],
        ),
        ('optim_wrapper = dict(precission="float32")', ['optim_wrapper', "'precision'"]),
        ('param_scheduler = dict(warmup_epoch=1)', ['param_scheduler', "'warmup_epochs'"]),
        ('train_dataloader = dict(batchsize=4)', ['train_dataloader', "'batch_size'"]),
        ("custom_hooks = [dict(type='ComitHook')]", ['custom_hooks.0', 'CommitHook']),
        ('default_hooks = dict(checkpoint=dict(max_kep=3))', ['default_hooks.checkpoint', "'max_keep'"]),
        ("env_cfg = dict(matmul_precision='high')", ["matmul_precision = 'high'", 'Write tf32=True']),
        ("tf32 = 'high'", ["tf32 = 'high'", 'True, False or convolutions']),
        ("channels_last = 'first'", ["channels_last = 'first'", "'auto'"]),
        ('compile = dict(_delete_=True, mod="default")', ["unknown keyword 'mod'", "'mode'"]),
        ('compile = "yes"', ["compile = 'yes'", 'keywords of torch.compile']),
        ('compile = True\nactivation_checkpointing = True', ['do not go together']),
        ('activation_checkpointing = 2', ['activation_checkpointing = 2', 'True or False']),
        (
            'env_cfg = dict(cudnn_benchmark=True)\nrandomness = dict(deterministic=True)',
            ['contradict each other', 'Leave cudnn_benchmark out'],
        ),
        ("env_cfg = dict(mp_cfg=dict(mp_start_method='frok'))", ["mp_start_method = 'frok'", 'fork, spawn']),
        ("lr_scaling = 'lnear'", ["lr_scaling='lnear'", "'linear'"]),
        ('randomness = dict(seed=1.5)', ['randomness.seed=1.5']),
        ('env_cfg = dict(dist_cfg=dict(timeout=-1))', ['dist_cfg.timeout=-1']),
        ('optim_wrapper = dict(clip_grad=5.0)', ['clip_grad = 5.0', 'dict(max_norm=1.0)']),
        ('optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(neck=0.1)))', ['custom_keys.neck = 0.1', 'a dict']),
        ('default_hooks = dict(param_scheduler=None)', ['nothing would move the schedules', 'param_scheduler=None']),
        ('modle = dict(width=3)', ["'modle'", "'model'"]),
        ('data_procesor = dict()\ndata_preprocesor = dict()', ["'data_preprocesor'", "'data_preprocessor'"]),
        ('randomness = dict(sed=1)', ['randomness', "'seed'"]),
        ('optim_wrapper = dict(paramwise_cfg=dict(norm_decay=0.0))', ['paramwise_cfg', "'norm_decay_mult'"]),
        (
            "optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck': dict(lr_mul=2.0)}))",
            ['custom_keys.neck', "'lr_mult'"],
        ),
        (
            "optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck': dict(fixd_lr=True)}))",
            ['custom_keys.neck', "'fixed_lr'"],
        ),
        (
            "optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck': dict(nesterov=True)}))",
            ['custom_keys.neck', 'nesterov'],
        ),
        (
            "optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'neck': dict(lr_mult=-1.0)}))",
            ['custom_keys.neck.lr_mult=-1.0'],
        ),
        ('optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=1.0))', ['LARS never decays', 'scale_all=True']),
        (
            "optim_wrapper = dict(constructor='PartRateConstructor', paramwise_cfg=dict(neck=dict(lrr=1.0)))",
            ['paramwise_cfg.neck', "'lr'"],
        ),
        ("optim_wrapper = dict(constructor='PartRateConstrutor')", ['optim_wrapper', 'PartRateConstructor']),
        ('optim_wrapper = dict(clip_grad=dict(max_nrom=1.0))', ['optim_wrapper.clip_grad', "'max_norm'"]),
        ('optim_wrapper = dict(clip_grad=dict(max_norm=-1.0))', ['optim_wrapper.clip_grad', 'max_norm=-1.0']),
        ('env_cfg = dict(cudnn_bechmark=True)', ['env_cfg', "'cudnn_benchmark'"]),
        ('env_cfg = dict(dist_cfg=dict(timout=60))', ['env_cfg.dist_cfg', "'timeout'"]),
        ("env_cfg = dict(mp_cfg=dict(mp_start_metod='fork'))", ['env_cfg.mp_cfg', "'mp_start_method'"]),
        ('evaluation = dict(batchsize=4)', ['evaluation', "'batch_size'"]),
        ("custom_imports = dict(import_='tiny_training')", ['custom_imports', "'imports'"]),
        ('default_hooks = dict(chekpoint=dict(interval=1))', ['default_hooks.chekpoint', "'checkpoint'"]),
        ('default_hooks = dict(moniter=None)', ['default_hooks.moniter', "'monitor'"]),
        ('custom_hooks = [dict(interval=1)]', ['custom_hooks.0', 'type']),
        (
            "default_hooks = dict(checkpoint=dict(priority='VERY_LO'))",
            ['default_hooks.checkpoint.priority', 'VERY_LOW'],
        ),
        (
            "visualizer = dict(vis_backends=[dict(type='LocalVisBackend', savedir='x')])",
            ['vis_backends.0', "'save_dir'"],
        ),
        ("visualizer = dict(vis_backends=[dict(type='LocalVisBackends')])", ['vis_backends.0', 'LocalVisBackend']),
        ('log_processor = dict(window_sise=5)', ['log_processor', "'window_size'"]),
        (
            "param_scheduler = dict(_delete_=True, type='MultiStepLR', milestone=[1])",
            ['param_scheduler', "'milestones'"],
        ),
        (
            "param_scheduler = dict(_delete_=True, type='CosineAnnealingLR', eta_mn=0.1)",
            ['param_scheduler', "'eta_min'"],
        ),
        (
            "param_scheduler = dict(_delete_=True, type='StepLR', step_size=1, gamma=-1.0)",
            ['param_scheduler', 'gamma=-1.0'],
        ),
        ('model = dict(width=float("nan"))', ['model.width = nan']),
        ('train_dataloader = dict(sampler=dict(shufle=True))', ['train_dataloader.sampler', "'shuffle'"]),
        ('train_cfg = dict(max_epoch=1)', ['train_cfg', "'max_epochs'"]),
        ('val_dataloader = dict(batch_size=1)', ['val_dataloader', 'KNNMonitorHook']),
        ("train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=3)", ['epochs', 'num_batch_per_epoch']),
        ('train_cfg = dict(_delete_=True, by_epoch=False, max_iters=3)', ['epochs', 'num_batch_per_epoch']),
        ('auto_scale_lr = dict(base_batch_size=256)', ['auto_scale_lr', 'lr_scaling']),
        (
            "train_dataloader = dict(dataset=dict(_delete_=True, type='ViewDataset', source=dict(type='Digits'), "
            'views=dict(one=dict(cout=2))))',
            ['train_dataloader.dataset.views.one', "'count'"],
        ),
    ],
)
def test_mistakes_in_a_config_name_their_place_and_the_nearest_word(write, text, words):
    with pytest.raises(ConfigError) as error:
        load_config(write(text))
    for word in words:
        assert word in str(error.value)


def test_configs_of_the_package_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_config('configs/kernels/digits_rbf.py').model.head.kernel.type == 'RBFKernel'
    with pytest.raises(FileNotFoundError, match="There is no config 'configs/kernels/digits_rbff.py'"):
        load_config('configs/kernels/digits_rbff.py')


def test_a_top_level_name_like_a_known_one_is_warned_of(write):
    with pytest.warns(UserWarning, match="'train_loader' .* nothing reads it. Did you mean 'train_dataloader'"):
        load_config(write('train_loader = dict(batch_size=4)'))


def test_free_helper_variables_stay_legal(write):
    assert load_config(write('width = 5\nmodel = dict(width=width)')).model.width == 5
    load_config(write("pipeline = [dict(type='PackInputs', fill=float('nan'))]"))  # of another library
    with pytest.warns(UserWarning, match="'mode' .* Did you mean 'model'"):
        load_config(write("mode = 'pretrain'"))


def test_a_schedule_of_the_users_own_hands_keywords_on(write):
    schedule = "param_scheduler = [dict(type='ScheduleBesideTheConfig', {}=0.5, begin=1, end=3)]"
    imports = "custom_imports = dict(imports=['config_module'])\n"
    path = write(imports + schedule.format('gamma'))
    path.with_name('config_module.py').write_text(SCHEDULE)
    load_config(path)
    with pytest.raises(ConfigError, match="unknown keyword 'gama'"):
        load_config(write(imports + schedule.format('gama')))


@pytest.mark.parametrize(
    'key, words',
    [
        ('modle.width', ["no key 'modle'", "'model'"]),
        ('model.witdh', ["model: TinyModel got an unknown keyword 'witdh'", "'width'"]),
        ('model.width.more', ["'model.width'", 'no key']),
        ('optim_wrapper.optimizer.lrr', ['optim_wrapper.optimizer: LARS', "'lr'"]),
        ('optim_wrapper.optimiser.lr', ["no key 'optim_wrapper.optimiser'", "'optimizer'"]),
        ('nothing_like_it', ["no key 'nothing_like_it'", 'Keys there']),
        ('custom_imports.imports.3', ['list of 1 items', "'3'"]),
        ('train_cfg.max_epoch', ['train_cfg', "'max_epochs'"]),
    ],
)
def test_options_that_the_config_does_not_have_are_errors(key, words):
    options = {key: 1, 'model.width': 4} if key.startswith('model.width.') else {key: 1}
    message = options_error(options)
    for word in words:
        assert word in message


def test_a_keyword_that_the_component_takes_may_be_new(write):
    cfg = load_config(
        CONFIG, {'model.width': 16, 'train_cfg.virtual_batch': 16, 'work_dir': 'here', 'model.norm': False}
    )
    assert (cfg.model.width, cfg.train_cfg.virtual_batch, cfg.work_dir) == (16, 16, 'here')


def test_a_list_and_an_item_of_it_in_one_call(write):
    path = write("custom_hooks = [dict(type='CommitHook')]\nmodel = dict(data_preprocessor=None)\nsizes = (1, 2, 3)")
    new = [dict(type='SeedHook'), dict(type='CheckpointHook', interval=1)]
    cfg = load_config(path, {'custom_hooks.1.interval': 5, 'custom_hooks': new, 'sizes.2': 9})
    assert [hook['type'] for hook in cfg.custom_hooks] == ['SeedHook', 'CheckpointHook']
    assert cfg.custom_hooks[1]['interval'] == 5
    assert cfg.sizes == (1, 2, 9)


def test_a_dict_is_merged_unless_it_says_delete():
    cfg = load_config(CONFIG, {'optim_wrapper.optimizer': dict(lr=1.0)})
    assert (cfg.optim_wrapper.optimizer.type, cfg.optim_wrapper.optimizer.lr) == ('LARS', 1.0)
    cfg = load_config(CONFIG, {'optim_wrapper.optimizer': dict(_delete_=True, type='SGD', lr=1.0)})
    assert dict(cfg.optim_wrapper.optimizer) == dict(type='SGD', lr=1.0)


def test_a_module_beside_the_config_is_found_from_the_copy_too(write, tmp_path):
    (tmp_path / 'hook_beside_the_config.py').write_text(MODULE)
    text = "custom_imports = dict(imports=['tiny_training', 'hook_beside_the_config'])\n"
    cfg = load_config(write(text + "custom_hooks = [dict(type='HookBesideTheConfig', level=2)]"))
    (tmp_path / 'elsewhere').mkdir()
    cfg.dump(tmp_path / 'elsewhere' / 'config.py')
    assert str(tmp_path) in load_config(tmp_path / 'elsewhere' / 'config.py').import_folders


def test_a_module_that_is_not_there_and_one_that_fails_by_itself(write, tmp_path):
    (tmp_path / 'parts_of_a_paper.py').write_text('from mmkernel.registry import NO_SUCH_NAME')
    with pytest.raises(ConfigError, match=f"no module 'part_of_a_paper' in {tmp_path}.*'parts_of_a_paper'"):
        load_config(write("custom_imports = dict(imports=['part_of_a_paper'])"))
    with pytest.raises(ImportError, match='NO_SUCH_NAME') as error:
        load_config(write("custom_imports = dict(imports='parts_of_a_paper')"))
    assert not isinstance(error.value, ConfigError)
    with pytest.warns(UserWarning, match="'parts_of_a_paper' is left out: .*NO_SUCH_NAME"):
        load_config(
            write("custom_imports = dict(imports=['tiny_training', 'parts_of_a_paper'], allow_failed_imports=True)")
        )


def test_missing_and_circular_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='tiny_config.py'):
        load_config(CONFIG.with_name('tiny_confg.py'))
    (tmp_path / 'one.py').write_text("_base_ = ['two.py']")
    (tmp_path / 'two.py').write_text("_base_ = ['one.py']")
    with pytest.raises(ConfigError, match='circle'):
        load_config(tmp_path / 'one.py')


@pytest.mark.parametrize(
    'a, b, count', [('modle', 'model', 2), ('same', 'same', 0), ('mdel', 'model', 1), ('kitten', 'sitting', 5)]
)
def test_slips_of_the_fingers(a, b, count):
    assert slips(a, b) == slips(b, a) == count


@pytest.mark.parametrize('epochs', [0, -1, 1.5, 'ten'])
def test_a_run_has_at_least_one_epoch(epochs):
    assert f'train_cfg.max_epochs={epochs}; expected one or more finite whole numbers > 0' in options_error(
        {'train_cfg.max_epochs': epochs}
    )


def test_a_base_that_is_not_there_is_named_with_the_place_of_the_configs(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text("_base_ = '../configs/_base_/lost.py'\n")
    with pytest.raises(
        FileNotFoundError, match="config.py' has _base_ '.*lost.py', which does not exist.*configs of mmkernel"
    ):
        load_config(path)
