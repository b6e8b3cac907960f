"""The Runner: exact resume, what a checkpoint holds, the guards, and the learning rate."""

import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from multiprocess import run_processes

from mmkernel.distributed import gather_rows
from mmkernel.engine import (
    BackboneWeightsHook,
    CheckpointError,
    NonFiniteLossError,
    Runner,
    load_config,
    read_checkpoint,
    train,
    write_checkpoint,
)
from mmkernel.engine.hooks import unwrap
from mmkernel.registry import MODELS

sys.path.insert(0, str(Path(__file__).parent))
from tiny_training import TinyModel  # noqa: E402

CONFIG = Path(__file__).parent / 'tiny_config.py'


def config(folder, **options):
    cfg = load_config(CONFIG, {'log_level': 'ERROR', **options})
    cfg.work_dir = str(folder)
    return cfg


def digest(model):
    md5 = hashlib.md5()
    for key, value in sorted(model.state_dict().items()):
        md5.update(key.encode() + value.contiguous().numpy().tobytes())
    return md5.hexdigest()


@pytest.mark.parametrize('workers, accumulation, layout', [(0, 1, False), (0, 3, True), (2, 1, False)])
def test_two_epochs_and_two_resumed_equal_four(tmp_path, workers, accumulation, layout):
    options = {
        'optim_wrapper.accumulative_counts': accumulation,  # 8 is no multiple of 3: windows end with the epoch
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': True,
        'channels_last': layout,
    }
    straight = train(config(tmp_path / 'a', **options))
    assert straight.model.commits == 4 * -(-8 // accumulation)  # one per real step
    stop = config(tmp_path / 'b', **options)
    first = train(stop)
    assert digest(first.model) == digest(straight.model)
    for epoch in (3, 4):
        (tmp_path / 'b' / f'epoch_{epoch}.pth').unlink()
    resumed = train(config(tmp_path / 'b', **options), resume=True)
    assert digest(resumed.model) == digest(straight.model)
    assert (resumed.epoch, resumed.iter) == (4, 32)
    histories = [run.message_hub.get_scalar('train/loss').data[0] for run in (straight, resumed)]
    assert len(histories[0]) == len(histories[1]) == 32
    assert (histories[0] == histories[1]).all()


def other_optimizer(folder, epochs=4):
    cfg = config(folder, **{'train_cfg.max_epochs': epochs})
    decay = dict(bias_decay_mult=0.0)  # several parameter groups
    optimizer = dict(type='AdamW', lr=0.3, weight_decay=0.01)
    cfg.optim_wrapper = dict(type='PretrainOptimWrapper', optimizer=optimizer, paramwise_cfg=decay)
    cfg.param_scheduler = [dict(type='LinearLR', start_factor=0.1, end=1), dict(type='CosineAnnealingLR', T_max=4)]
    return cfg


def test_other_optimizers_and_schedules_resume_exactly(tmp_path):
    straight = train(other_optimizer(tmp_path))
    for epoch in (3, 4):
        (tmp_path / f'epoch_{epoch}.pth').unlink()
    resumed = train(other_optimizer(tmp_path), resume=True)
    assert digest(resumed.model) == digest(straight.model)


def test_resuming_with_another_optimizer_is_refused(tmp_path):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    with pytest.raises(
        CheckpointError, match=r'optimizer: LARS\(.* -> AdamW\(.*the state of one does not fit the other'
    ):
        train(other_optimizer(tmp_path), resume=str(tmp_path / 'epoch_1.pth'))


def test_changed_optimizer_settings_take_effect_and_weights_alone_do_not_resume(tmp_path):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    changed = {'optim_wrapper.optimizer.weight_decay': 0.5, 'train_cfg.max_epochs': 2}
    resumed = train(config(tmp_path, **changed), resume=True)
    assert resumed.optim_wrapper.param_groups[0]['weight_decay'] == 0.5
    write_checkpoint(dict(state_dict=resumed.model.state_dict()), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='weights only'):
        train(config(tmp_path), resume=str(tmp_path / 'weights.pth'))
    cfg = config(tmp_path / 'new', **{'load_from': str(tmp_path / 'weights.pth'), 'train_cfg.max_epochs': 1})
    assert train(cfg).model.commits == 24  # 16 came with the weights


def test_a_run_by_iterations_is_refused_with_a_reason(tmp_path):
    cfg = config(tmp_path)
    cfg.train_cfg = dict(by_epoch=False, max_iters=4)
    with pytest.raises(ValueError, match='a run counts epochs'):
        train(cfg)


def test_the_checkpoint_is_plain_and_whole(tmp_path):
    runner = train(config(tmp_path, **{'train_cfg.max_epochs': 2}))
    checkpoint = read_checkpoint(tmp_path / 'epoch_2.pth')
    script = f'import torch; torch.load({str(tmp_path / "epoch_2.pth")!r}, weights_only=True)'  # without our package
    subprocess.run([sys.executable, '-c', script], check=True, timeout=120)
    assert set(checkpoint) == {
        'meta', 'state_dict', 'optimizer', 'param_schedulers', 'message_hub', 'random_states'
    }  # fmt: skip
    assert checkpoint['param_schedulers'] == [{'last_step': 16}]
    meta = checkpoint['meta']
    assert (meta['epoch'], meta['iter'], meta['seed'], meta['steps_per_epoch']) == (2, 16, 0, 8)
    assert 'TinyModel' in meta['config']
    assert checkpoint['state_dict']['commits'] == 16
    assert len(checkpoint['random_states']) == runner.world_size == 1
    assert (tmp_path / 'config.py').is_file()
    assert load_config(tmp_path / 'config.py').optim_wrapper.optimizer.lr == 0.3  # as written, so it can run again


def test_old_checkpoints_go_and_the_last_epoch_is_always_saved(tmp_path):
    hook = {'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.max_keep': 1}
    train(config(tmp_path, **hook, **{'train_cfg.max_epochs': 3}))
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_3.pth']
    assert not list(tmp_path.glob('.*tmp'))


def test_a_resumed_run_can_be_longer_and_follows_the_longer_curve(tmp_path):
    train(config(tmp_path, **{'train_cfg.max_epochs': 2}))
    resumed = train(config(tmp_path, **{'train_cfg.max_epochs': 3}), resume=True)
    rates = resumed.message_hub.get_scalar('train/lr').data[0]
    whole = train(config(tmp_path / 'whole', **{'train_cfg.max_epochs': 3}))
    assert rates[16:].tolist() == whole.message_hub.get_scalar('train/lr').data[0][16:].tolist()


def test_a_non_finite_loss_stops_the_run_before_the_weights_move(tmp_path):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    cfg = config(tmp_path, **{'model.bad_iteration': 3})
    with pytest.raises(NonFiniteLossError, match=r'iteration 10 is nan.*epoch_1\.pth'):
        train(cfg, resume_anyway=True)
    record = json.loads(next(tmp_path.glob('*/non_finite_rank0.json')).read_text())
    assert (record['epoch'], record['iteration'], len(record['sample_index'])) == (1, 10, 8)
    assert [p.name for p in tmp_path.glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.parametrize('raises', ['decomposition', 'check'])
def test_what_fails_at_a_nan_before_there_is_a_loss_is_reported_like_one(tmp_path, raises):
    train(config(tmp_path, **{'train_cfg.max_epochs': 1}))
    cfg = config(tmp_path, **{'model.bad_iteration': 3, 'model.raises': raises})
    words = r'Iteration 10 has no finite loss: NaN or infinite values in z of .*Likely causes.*epoch_1\.pth: --resume.*replays'
    with pytest.raises(NonFiniteLossError, match=words) as error:
        train(cfg, resume_anyway=True)
    assert isinstance(error.value.__cause__, (ValueError, torch.linalg.LinAlgError))
    record = json.loads(next(tmp_path.glob('*/non_finite_rank0.json')).read_text())
    assert (record['epoch'], record['iteration'], len(record['sample_index'])) == (1, 10, 8)
    assert len(record['sample_index_before']) == 8


def test_what_fails_for_another_reason_keeps_its_words(tmp_path):
    with pytest.raises(ValueError, match='^The head refuses its rows.$'):
        train(config(tmp_path, **{'model.bad_iteration': 3, 'model.raises': 'finite'}))


@pytest.mark.parametrize(
    'where, words',
    [
        ('weight', r'1 tensors hold NaN .*first: state_dict\.neck\.bias'),
        ('buffer', '1 tensors hold NaN .*first: state_dict.*running_var'),
        ('optimizer', '1 tensors hold NaN .*first: optimizer.*momentum_buffer'),
        ('average', '1 tensors hold NaN .*first: ema_state_dict'),
    ],
)
def test_non_finite_numbers_never_reach_a_checkpoint(tmp_path, where, words):
    cfg = config(tmp_path, **{'train_cfg.max_epochs': 1})
    cfg.custom_hooks = [dict(type='SpoilWeights', where=where)]
    with pytest.raises(NonFiniteLossError, match=words):
        train(cfg)
    assert not list(tmp_path.glob('*.pth'))


@pytest.mark.parametrize('rule, expected', [('linear', 0.3 * 32 / 256), ('sqrt', 0.3 * 32**0.5), (None, 0.3)])
def test_learning_rate_is_scaled_by_the_effective_batch(tmp_path, rule, expected):
    options = {'lr_scaling': rule, 'optim_wrapper.accumulative_counts': 4, 'train_cfg.max_epochs': 1}
    runner = train(config(tmp_path, **options, **{'param_scheduler.warmup_epochs': 0}))
    assert runner.param_schedulers[0].base_values == pytest.approx([expected])


def test_bfloat16_trains_on_the_cpu_and_float16_is_refused(tmp_path):
    runner = train(config(tmp_path, **{'optim_wrapper.precision': 'bfloat16', 'train_cfg.max_epochs': 1}))
    assert runner.iter == 8
    with pytest.raises(ValueError, match='needs a GPU'):
        train(config(tmp_path / 'half', **{'optim_wrapper.precision': 'float16'}))


def test_the_seed_reaches_the_data_set_and_runs_in_one_second_stay_apart(tmp_path):
    runs = [train(config(tmp_path / name, **{'randomness.seed': 7, 'train_cfg.max_epochs': 1})) for name in 'ab']
    assert runs[0].train_dataloader.dataset.seed == 7
    assert digest(runs[0].model) == digest(runs[1].model)
    assert runs[0].experiment_name != runs[1].experiment_name
    assert len(runs[1].message_hub.get_scalar('train/loss').data[0]) == 8


def test_too_few_images_for_one_batch_is_an_error(tmp_path):
    with pytest.raises(ValueError, match='no batch of 8'):
        train(config(tmp_path, **{'train_dataloader.dataset.length': 5}))


def test_a_hook_set_to_none_is_left_out(tmp_path):
    cfg = config(tmp_path, **{'train_cfg.max_epochs': 1})
    cfg.default_hooks.commit, cfg.default_hooks.timer = None, None
    names = {type(hook).__name__ for hook in train(cfg).hooks}
    assert not names & {'CommitHook', 'IterTimerHook'}
    assert 'SeedHook' in names


def test_a_run_is_trained_once(tmp_path):
    """A second time would scale the learning rate again and start the target anew from the encoder."""
    runner = train(config(tmp_path, **{'train_cfg.max_epochs': 1, 'param_scheduler.warmup_epochs': 0}))
    before = digest(runner.model)
    with pytest.raises(RuntimeError, match='has been trained. Build another'):
        runner.train()
    assert digest(runner.model) == before


@MODELS.register_module(force=True)
class NeverInitialised(TinyModel):
    """Its weights are those of its constructor."""

    @property
    def init_weights(self):
        raise AttributeError('init_weights')


@MODELS.register_module(force=True)
class DrawnLater(TinyModel):
    """It draws when it is initialised."""

    def init_weights(self):
        self.neck.reset_parameters()


STARTS = {
    'constructor': dict(type='NeverInitialised'),
    'init_weights': dict(type='DrawnLater'),
    'momentum target and queue': dict(
        type='JointEmbedding',
        backbone=dict(
            type='TIMMBackbone', model_name='resnet18', small_images=True, in_channels=1, channels=(4, 4, 4, 4)
        ),
        neck=dict(type='MLPNeck', dims=(8, 8)),
        head=dict(type='InfoNCEHead', negatives='queue', queue=dict(type='FeatureQueue', length=64)),
        target=dict(type='MomentumTarget'),
        data_preprocessor=dict(type='BaseDataPreprocessor'),
    ),
}


class NoiseHook(Hook):
    """It changes weights before a run, by other numbers in each process."""

    def before_run(self, runner):
        for p in unwrap(runner.model).parameters():
            p.data += torch.randn_like(p)


def starts_of(rank, world_size, folder):
    """How many numbers differ between processes after the constructor and before the first step, of each model; seeds."""
    differ, seeds = {}, set()
    for name, model in STARTS.items():
        cfg = config(Path(folder) / name, **{'launcher': 'pytorch', 'randomness.diff_rank_seed': True})
        cfg.model = model
        if 'momentum' in name:
            cfg.default_hooks.momentum = dict(type='MomentumUpdateHook')
        else:
            cfg.custom_hooks = [NoiseHook()]
        runner = Runner.from_cfg(cfg)
        seeds |= {runner.seed, runner.train_dataloader.sampler.seed}
        counts = []
        for prepare in (bool, runner._prepare):
            prepare()
            parts = [p.detach().double().flatten() for p in (*runner.model.parameters(), *runner.model.buffers())]
            both = gather_rows(torch.cat(parts)[None])
            counts.append(int((both != both[0]).sum()))
        runner._leave()
        target = getattr(unwrap(runner.model), 'target', None)
        if target is not None:  # it starts from the weights that all processes have
            online, momentum = unwrap(runner.model).neck.parameters(), target.neck.parameters()
            counts.append(sum(int((a != b).sum()) for a, b in zip(online, momentum, strict=True)))
        differ[name] = counts
    return differ, seeds


def test_two_processes_start_equal(tmp_path):
    for differ, seeds in run_processes(starts_of, 2, str(tmp_path)):
        assert seeds == {0}  # with diff_rank_seed too: the order of images, views and clusters are drawn from it
        for name, (drawn, started, *target) in differ.items():
            assert drawn > 0, name
            assert started == 0, name
            assert target in ([], [0]), name


def test_a_momentum_target_starts_from_the_weights_of_the_backbone_hook(tmp_path):
    model, other = (MODELS.build(STARTS['momentum target and queue']) for _ in range(2))
    model.init_weights()
    torch.save(other.backbone.state_dict(), tmp_path / 'backbone.pth')
    hook = BackboneWeightsHook(str(tmp_path / 'backbone.pth'))
    hook.before_run(SimpleNamespace(model=model, logger=logging.getLogger('test')))
    for part in (model.backbone, model.target.backbone):
        for own, loaded in zip(part.parameters(), other.backbone.parameters(), strict=True):
            assert torch.equal(own, loaded)
