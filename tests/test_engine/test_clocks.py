"""When targets move, queues begin, and layers are frozen."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from mmkernel.datasets import CorruptImageError, Source, ViewDataset
from mmkernel.engine import FreezeHook, MomentumUpdateHook, QueueHook, WarmupCosineLR, load_config, train
from mmkernel.engine.clocks import check_clocks, check_last_batch, current_step, momentum_at
from mmkernel.engine.loop import EpochLoop
from mmkernel.models import CosinePredictionHead, MomentumTarget, build_model
from mmkernel.planning.dry_run import make_plan
from mmkernel.registry import HOOKS

PARTS = dict(
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, in_channels=1, layers=(1, 1, 1, 1),
                  channels=(4, 4, 8, 8)),
    neck=dict(type='MLPNeck', dims=(8, 6)),
    data_preprocessor=dict(type='ViewPreprocessor'),
)  # fmt: skip
PREDICTION = dict(
    type='JointEmbedding', **PARTS, predictor=dict(type='MLPNeck', dims=(8, 6)),
    target=dict(type='MomentumTarget'), head=dict(type='CosinePredictionHead'),
)  # fmt: skip
CODES = dict(type='JointEmbedding', **PARTS, head=dict(type='SinkhornCodesHead', num_prototypes=5, queue_length=16))


@HOOKS.register_module(force=True)
class Watch(Hook):
    """The parameters after each iteration."""

    seen = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen.append({name: p.detach().clone() for name, p in runner.model.named_parameters()})


def config(tmp_path, repository, model, **hooks):
    cfg = load_config(
        repository / 'tests/test_engine/tiny_config.py', {'log_level': 'ERROR', 'train_cfg.max_epochs': 2}
    )
    cfg.work_dir, cfg.model = str(tmp_path), {k: v for k, v in model.items() if k != 'data_preprocessor'}
    cfg.data_preprocessor = model['data_preprocessor']
    cfg.default_hooks.update(hooks)
    return cfg


def test_the_momentum_curve():
    assert momentum_at(0, 100, 0.9, 1.0) == pytest.approx(0.9)
    assert momentum_at(50, 100, 0.9, 1.0) == pytest.approx(0.95)
    assert momentum_at(100, 100, 0.9, 1.0) == 1.0
    assert momentum_at(30, 100, 0.99, 1.0) == pytest.approx(1 - 0.5 * (1 + math.cos(math.pi * 0.3)) * 0.01)  # MoCo v3's
    assert momentum_at(50, 100, 0.999, 1.0, 'constant') == 0.999


def test_steps_are_counted_by_windows():
    wrapper = SimpleNamespace(_accumulative_counts=3)
    runner = SimpleNamespace(epoch=2, train_dataloader=range(8), optim_wrapper=wrapper)
    assert [current_step(runner, i) for i in range(8)] == [6, 6, 6, 7, 7, 7, 8, 8]


@pytest.mark.parametrize('accumulation', [1, 3])
def test_the_target_moves_once_per_real_step(tmp_path, repository, monkeypatch, accumulation):
    calls, update = [], MomentumTarget.update
    monkeypatch.setattr(
        MomentumTarget, 'update', lambda self, m, real=None: (calls.append(m), update(self, m, real))[1]
    )
    cfg = config(tmp_path, repository, PREDICTION, momentum=dict(type='MomentumUpdateHook', momentum=0.5))
    cfg.optim_wrapper.accumulative_counts = accumulation
    cfg.optim_wrapper.optimizer.weight_decay = 0.1
    train(cfg)
    K = 2 * -(-8 // accumulation)
    assert calls == pytest.approx([momentum_at(k, K, 0.5, 1.0) for k in range(K)])
    if accumulation == 1:
        (tmp_path / 'epoch_2.pth').unlink()
        before = len(calls)
        train(cfg, resume=True)
        assert calls[before:] == calls[8:before]  # the second epoch again


def test_a_momentum_target_has_exactly_one_hook(tmp_path, repository):
    with pytest.raises(
        ValueError, match=r'exactly one hook must move; there are 0 .*Add default_hooks=dict\(momentum='
    ):
        train(config(tmp_path, repository, PREDICTION))
    hook = dict(type='MomentumUpdateHook')
    with pytest.raises(ValueError, match='there are 2 .*Remove all but one'):
        train(config(tmp_path, repository, PREDICTION, momentum=hook, again=hook))


def test_a_hook_without_its_part(tmp_path, repository):
    model = {**PREDICTION, 'target': dict(type='StopGradientTarget')}
    with pytest.raises(ValueError, match='MomentumUpdateHook has nothing to move: model.target is StopGradientTarget'):
        train(config(tmp_path, repository, model, momentum=dict(type='MomentumUpdateHook')))
    with pytest.raises(ValueError, match='QueueHook has no queue to start'):
        train(config(tmp_path, repository, model, queue=dict(type='QueueHook')))


def test_what_is_not_told_of_steps_that_do_not_count_is_refused():
    class Remembers(CosinePredictionHead):
        def commit(self):
            super().commit()

    class Moves(MomentumTarget):
        def update(self, momentum):
            super().update(momentum)

    model = build_model(dict(model={**PREDICTION, 'head': Remembers()}))
    with pytest.raises(ValueError, match=r'Remembers.*Write commit\(self, real=None\)'):
        check_clocks(model, [MomentumUpdateHook()], 5)
    model = build_model(dict(model={**PREDICTION, 'target': dict(type=Moves)}))
    with pytest.raises(ValueError, match=r'Moves.*Write update\(self, momentum, real=None\)'):
        check_clocks(model, [MomentumUpdateHook()], 5)


def test_a_queue_begins_with_its_epoch(tmp_path, repository):
    with pytest.raises(ValueError, match='would never be used. Add default_hooks=dict'):
        train(config(tmp_path, repository, CODES))
    runner = train(config(tmp_path, repository, CODES, queue=dict(type='QueueHook', start_epoch=1)))
    assert int(runner.model.head.queue.stored) == 16
    late = train(config(tmp_path / 'late', repository, CODES, queue=dict(type='QueueHook', start_epoch=2)))
    assert int(late.model.head.queue.stored) == 0


def test_more_prototypes_than_rows_are_warned_of_before_training():
    model = build_model(dict(model=CODES))
    with pytest.warns(UserWarning, match='5 prototypes for 4 rows of a batch and 0 of the queue'):
        check_clocks(
            build_model(dict(model={**CODES, 'head': dict(type='SinkhornCodesHead', num_prototypes=5)})), [], 4
        )
    with pytest.raises(ValueError, match='length 16 is not a multiple of the global batch of 5'):
        check_clocks(model, [QueueHook()], 5)


WHITE = dict(type='JointEmbedding', **PARTS, head=dict(type='WhiteningHead', sub_batch_size=8))
PARTED = {**PREDICTION, 'target': dict(type='MomentumTarget', sub_batches=3)}


@pytest.mark.parametrize(
    'model, batch, message',
    [
        (WHITE, 16, None),  # the last 8
        (WHITE, 20, None),  # none shorter
        (
            WHITE,
            36,
            r'has 4 image.s. of each process \(40 images in batches of 36\), but WhiteningHead says: A batch of 4',
        ),
        (
            PARTED,
            36,
            r'has 4 image.s. .* but MomentumTarget says: .*sub_batches = 3 does not divide the local batch of 4\. Set',
        ),
        (CODES, 36, None),
        (CODES, 39, r'has 1 image.s. .* but an objective compares at least two\. Set train_dataloader\.drop_last=True'),
    ],
)
def test_a_shorter_last_batch_that_fits_no_head_is_refused_before_training(model, batch, message):
    model = build_model(dict(model=model))
    check_last_batch(model, 40, batch, drop_last=True)
    if message is None:
        check_last_batch(model, 40, batch, drop_last=False)
    else:
        with pytest.raises(ValueError, match=message):
            check_last_batch(model, 40, batch, drop_last=False)


def test_it_is_refused_by_the_run_and_its_rehearsal(tmp_path, repository):
    cfg = config(tmp_path, repository, CODES, queue=dict(type='QueueHook', start_epoch=1))
    cfg.train_dataloader.update(batch_size=63, drop_last=False)
    cfg.model.head.queue_length = 63
    for start in (train, lambda cfg: make_plan(cfg, 1)):
        with pytest.raises(ValueError, match='an objective compares at least two. Set train_dataloader.drop_last'):
            start(cfg)


def test_layers_are_frozen_for_their_own_lengths(tmp_path, repository):
    layers = {'head.prototypes': dict(steps=3), 'neck': dict(epochs=1), 'backbone.conv1': 'all'}
    cfg = config(tmp_path, repository, {**CODES, 'head': dict(type='SinkhornCodesHead', num_prototypes=5)})
    cfg.default_hooks.update(freeze=dict(type='FreezeHook', layers=layers))
    cfg.optim_wrapper.optimizer.weight_decay = 0.1
    cfg.custom_hooks = [dict(type='Watch')]
    Watch.seen = []
    train(cfg)
    moved = {name: [i + 1 for i, (a, b) in enumerate(zip(Watch.seen, Watch.seen[1:], strict=False))
                    if not torch.equal(a[name], b[name])] for name in Watch.seen[0]}  # fmt: skip
    assert moved['head.prototypes.weight'][:1] == [3]
    assert moved['neck.0.weight'][:1] == [8]
    assert moved['backbone.conv1.weight'] == []
    assert moved['backbone.layer1.0.conv1.weight'][:1] == [1]  # step 0 has learning rate 0


def test_a_wrapper_that_freezes_nothing_is_refused(tmp_path, repository):
    cfg = config(tmp_path, repository, PREDICTION, momentum=dict(type='MomentumUpdateHook'))
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=cfg.optim_wrapper.optimizer)
    cfg.default_hooks.update(freeze=dict(type='FreezeHook', layers={'backbone': 'all'}))
    with pytest.raises(
        ValueError, match="OptimWrapper would train them: set optim_wrapper.type='PretrainOptimWrapper'"
    ):
        train(cfg)


def test_a_mistyped_layer(tmp_path, repository):
    cfg = config(tmp_path, repository, PREDICTION, momentum=dict(type='MomentumUpdateHook'))
    cfg.default_hooks.update(freeze=dict(type='FreezeHook', layers={'backbon.conv1': 'all'}))
    with pytest.raises(ValueError, match=r"no parameters under 'backbon.conv1'. Did you mean 'backbone.conv1"):
        train(cfg)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: FreezeHook({'neck': 3}), "dict.steps=n., dict.epochs=n. or 'all', got 3"),
        (lambda: MomentumUpdateHook(momentum=1.5), 'momentum=1.5; expected .* at most 1'),
        (lambda: MomentumUpdateHook(schedule='linear'), "schedule is one of 'cosine', 'constant'"),
    ],
)
def test_settings_without_meaning(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_group_can_keep_its_learning_rate():
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([dict(params=[a]), dict(params=[b], fixed_lr=True)], lr=0.5)
    schedule = WarmupCosineLR(optimizer, total_steps=10)
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert [group['lr'] for group in optimizer.param_groups] == [pytest.approx(0.25), 0.5]


CONTRAST = dict(
    type='JointEmbedding', **PARTS, target=dict(type='MomentumTarget', shuffle_bn=True, sub_batches=2),
    head=dict(type='InfoNCEHead', negatives='queue', queue=dict(type='FeatureQueue', length=24)),
    online_views=(0,), target_views=(1,),
)  # fmt: skip


@pytest.mark.parametrize(
    'model, hooks',
    [
        (CONTRAST, dict(momentum=dict(type='MomentumUpdateHook', momentum=0.9))),
        (CODES, dict(queue=dict(type='QueueHook', start_epoch=0))),
    ],
    ids=['momentum target with queue', 'prototypes with queue'],
)
def test_what_a_method_remembers_survives_a_resume(tmp_path, repository, model, hooks):
    straight = train(config(tmp_path, repository, model, **hooks)).model.state_dict()
    (tmp_path / 'epoch_2.pth').unlink()
    resumed = train(config(tmp_path, repository, model, **hooks), resume=True).model.state_dict()
    assert all(torch.equal(straight[name], value) for name, value in resumed.items())
    assert int(resumed['head.queue.stored']) == resumed['head.queue.rows'].shape[1]


class Damaged(Source):
    """Every third image cannot be decoded."""

    def __init__(self):
        super().__init__('skip')
        self.labels, self.classes = np.arange(9), list('abcdefghi')

    def name(self, i):
        return f'photo-{i}'

    def read(self, i):
        if i % 3 == 1:
            raise CorruptImageError(f'{self.name(i)} cannot be decoded.')
        return np.zeros((4, 4, 3), np.uint8)


def test_the_log_says_once_which_images_were_left_out():
    loop, said, data = EpochLoop.__new__(EpochLoop), [], ViewDataset(Damaged(), dict(a=dict(count=1)))
    logger, loader = SimpleNamespace(warning=said.append), SimpleNamespace(dataset=data)
    loop._told, loop.runner = '', SimpleNamespace(logger=logger, train_dataloader=loader)
    with warnings.catch_warnings(action='ignore'):
        for index in (0, 1, 4, 4):
            _ = data[0, index]
            loop.tell_left_out()
    assert said == [
        '1 of 9 images cannot be decoded and were replaced by others: photo-1.',
        '2 of 9 images cannot be decoded and were replaced by others: photo-1 and 1 more.',
    ]
