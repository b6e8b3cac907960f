"""Hooks, backends and configs written for mmengine and mmselfsup go on working, or are refused with the word that is right here."""

from pathlib import Path
from types import SimpleNamespace

import mmengine.registry as roots
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from mmengine.visualization import BaseVisBackend

from mmkernel.engine import CommitHook, ConfigError, Runner, load_config, read_checkpoint, train
from mmkernel.registry import LOOPS

CONFIG = Path(__file__).parent / 'tiny_config.py'
GOLDEN = Path(__file__).parents[1] / 'golden/resume_c72413b_epoch_2.pth'


def config(folder, **options):
    cfg = load_config(CONFIG, {'log_level': 'ERROR', **options})
    cfg.work_dir = str(folder)
    return cfg


@roots.HOOKS.register_module(force=True)
class ForeignHook(Hook):
    """Looks at everything that hooks of mmselfsup look at, and writes it down."""

    priority = 'ABOVE_NORMAL'
    told: list = []

    def __init__(self, every=3):
        self.every = every

    def before_run(self, runner):
        self.told.append(('before_run', runner.work_dir, runner.max_epochs, runner.max_iters))

    def before_train(self, runner):
        groups = runner.optim_wrapper.param_groups
        self.told.append(('before_train', len(runner.train_dataloader), len(groups), runner.experiment_name[:11]))

    def before_train_epoch(self, runner):
        self.told.append(('before_train_epoch', runner.epoch, runner.model.training, self.is_last_train_epoch(runner)))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.every_n_inner_iters(batch_idx, 8):
            self.told.append(('before_train_iter', runner.iter, sorted(data_batch)))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        runner.message_hub.update_scalar('train/seen', outputs['loss'] * 2)
        if self.every_n_train_iters(runner, self.every):
            seen, loss = (runner.message_hub.get_scalar(f'train/{name}') for name in ('seen', 'loss'))
            self.told.append(
                ('every', runner.iter, float(seen.current() / loss.current()), seen.mean() == 2 * loss.mean())
            )
        if self.is_last_train_iter(runner):
            self.told.append(('last_iter', runner.iter))

    def after_train_epoch(self, runner):
        runner.logger.info('A foreign hook.')
        self.told.append(('after_train_epoch', runner.epoch, runner.message_hub.get_info('epoch')))

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['foreign'] = runner.rank

    def after_run(self, runner):
        self.told.append(('after_run', runner.epoch, runner.iter))


@roots.VISBACKENDS.register_module(force=True)
class ForeignBackend(BaseVisBackend):
    """A backend of a user's own."""

    told: list = []

    def _init_env(self):
        pass

    @property
    def experiment(self):
        return self

    def add_config(self, config, **kwargs):
        self.told.append(('config', config.model.type))

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self.told.append((step, dict(scalar_dict)))

    def add_graph(self, model, data_batch, **kwargs):
        pass

    def add_image(self, name, image, step=0, **kwargs):
        pass

    def add_scalar(self, name, value, step=0, **kwargs):
        pass


def test_a_hook_and_a_backend_are_called_at_their_times_with_the_values(tmp_path):
    ForeignHook.told, ForeignBackend.told = [], []
    cfg = config(tmp_path, **{'train_cfg.max_epochs': 2, 'default_hooks.logger.interval': 4})
    cfg.custom_hooks = [dict(type='ForeignHook', every=3, priority='NORMAL')]
    cfg.visualizer = dict(type='Visualizer', vis_backends=[dict(type='ForeignBackend')])
    runner = train(cfg)
    told = ForeignHook.told
    assert told[:4] == [
        ('before_run', str(tmp_path), 2, 16),
        ('before_train', 8, 1, 'tiny_config'),
        ('before_train_epoch', 0, True, False),
        ('every', 2, 2.0, True),
    ]
    assert [entry[:2] for entry in told[4:]] == [
        ('every', 5), ('before_train_iter', 7), ('after_train_epoch', 0), ('before_train_epoch', 1), ('every', 8),
        ('every', 11), ('every', 14), ('before_train_iter', 15), ('last_iter', 15), ('after_train_epoch', 1), ('after_run', 2),
    ]  # fmt: skip
    assert next(hook for hook in runner.hooks if isinstance(hook, ForeignHook)).priority == 'NORMAL'
    order = [type(hook).__name__ for hook in runner.hooks]
    assert order.index('RuntimeInfoHook') < order.index('ForeignHook') < order.index('LoggerHook')
    assert read_checkpoint(tmp_path / 'epoch_2.pth')['foreign'] == 0
    assert ForeignBackend.told[0] == ('config', 'TinyModel')
    steps = [step for step, values in ForeignBackend.told[1:] if 'loss' in values]
    assert steps == [4, 8, 12, 16]
    last = ForeignBackend.told[-1][1]
    history = runner.message_hub.get_scalar('train/loss')
    assert last['loss'] == pytest.approx(history.mean(10))
    assert last['seen'] == pytest.approx(2 * history.current())
    assert last['lr'] == runner.message_hub.get_scalar('train/lr').current()
    assert (last['epoch'], ForeignBackend.told[-1][0]) == (2, 16)


def test_a_commit_follows_each_window_of_mmengines_wrapper():
    model = torch.nn.Linear(2, 1)
    model.commit = lambda real: told.append(real)
    wrapper, told = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=2), []
    wrapper.initialize_count_status(model, 0, 4)
    for i in range(4):
        wrapper.update_params(model(torch.ones(3, 2)).mean())
        CommitHook().after_train_iter(SimpleNamespace(model=model, optim_wrapper=wrapper), i)
    assert told == [None, None]


def foreign_config(folder, **wrapper):
    """As configs of mmselfsup are written."""
    cfg = config(folder)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2)
    optimizer = dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4)
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=optimizer, clip_grad=dict(max_norm=1.0), **wrapper)
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
        dict(type='CosineAnnealingLR', T_max=1, by_epoch=True, begin=1, end=2),
    ]
    cfg.default_hooks = dict(
        runtime_info=dict(type='RuntimeInfoHook'),
        timer=dict(type='IterTimerHook'),
        logger=dict(type='LoggerHook', interval=4),
        param_scheduler=dict(type='ParamSchedulerHook'),
        checkpoint=dict(type='CheckpointHook', interval=1),
        sampler_seed=dict(type='DistSamplerSeedHook'),
    )
    return cfg


def test_a_config_of_mmselfsup_trains(tmp_path):
    runner = train(foreign_config(tmp_path, accumulative_counts=2))
    assert (runner.epoch, runner.iter, runner.max_iters) == (2, 16, 16)
    rates = runner.message_hub.get_scalar('train/lr').data[0]
    assert rates[0] < rates[6] < 0.03  # linear_lr scaling: 0.1 * 8 * 2 / 256 at most
    assert runner.message_hub.get_scalar('train/grad_norm').current() > 0
    assert isinstance(runner.train_loop.dataloader, torch.utils.data.DataLoader)


def test_a_loop_named_by_type_may_inherit_by_epoch(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = [{str(CONFIG)!r}]\ntrain_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3)\n")
    cfg = load_config(path)
    assert (cfg.train_cfg.by_epoch, cfg.train_cfg.max_epochs) == (True, 3)


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=8)), 'num_batch_per_epoch'),
        (dict(train_cfg=dict(by_epoch=False, max_iters=8)), 'num_batch_per_epoch'),
        (dict(val_cfg=dict(type='ValLoop')), 'val_cfg is not read here.*AccuracyHook'),
        (dict(test_dataloader=dict(batch_size=8)), 'test_dataloader is not read here.*AccuracyHook'),
        (dict(auto_scale_lr=dict(base_batch_size=256)), "lr_scaling='linear'"),
        (dict(lr_config=dict(policy='CosineAnnealing')), 'lr_config is not read here.*param_scheduler'),
        (dict(runner=dict(type='EpochBasedRunner', max_epochs=2)), 'train_cfg'),
        (dict(optimizer_config=dict(grad_clip=None)), 'optim_wrapper'),
        (dict(checkpoint_config=dict(interval=1)), 'default_hooks'),
        (dict(resume_from='epoch_1.pth'), '--resume'),
        (dict(optim_wrapper=None), 'optim_wrapper'),
        (dict(optim_wrapper=dict(a=dict(optimizer=dict(type='SGD', lr=0.1)))), 'optimizer'),
    ],
)
def test_what_is_not_done_here_is_refused_with_the_word_that_is_right(tmp_path, change, words):
    cfg = foreign_config(tmp_path)
    for key, value in change.items():
        cfg[key] = value
    with pytest.raises(ConfigError, match=words):
        Runner.from_cfg(cfg).train()


@LOOPS.register_module(force=True)
class ForeignLoop(EpochBasedTrainLoop):
    """A loop of a user's own, on mmengine's."""

    epochs_run = 0

    def run_epoch(self):
        super().run_epoch()
        self.epochs_run += 1


def test_a_loop_of_the_users_own_runs_and_resumes(tmp_path):
    cfg = config(tmp_path)
    cfg.train_cfg = dict(type='ForeignLoop', max_epochs=2)
    runner = train(cfg)
    assert (runner.train_loop.epochs_run, runner.epoch, runner.iter) == (2, 2, 16)
    cfg.train_cfg.max_epochs = 3
    assert train(cfg, resume=True).train_loop.epochs_run == 1


@roots.HOOKS.register_module(force=True)
class StopAfter(Hook):
    """As mmengine's EarlyStoppingHook does."""

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = runner.epoch == 1


def test_a_hook_can_end_the_run(tmp_path):
    cfg = config(tmp_path)
    cfg.custom_hooks = [dict(type='StopAfter')]
    assert train(cfg).epoch == 2


def test_a_checkpoint_of_the_first_version_goes_on_like_a_straight_run(tmp_path):
    straight = train(config(tmp_path / 'straight'))
    resumed = train(config(tmp_path / 'resumed'), resume=GOLDEN)
    assert (resumed.epoch, resumed.iter) == (4, 32)
    for name, tensor in straight.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    for name in ('train/loss', 'train/lr', 'train/spread'):
        a, b = (run.message_hub.get_scalar(name).data[0] for run in (straight, resumed))
        torch.testing.assert_close(torch.tensor(a), torch.tensor(b), rtol=1e-4, atol=1e-6)
        assert len(b) == 32
    means = [run.message_hub.get_scalar('train/loss').mean() for run in (straight, resumed)]
    assert means[0] == pytest.approx(means[1], rel=1e-4)
