"""Training whose views are finished on the device takes the steps that it takes on the same pictures, finished beforehand."""

import os
from pathlib import Path

import pytest
import torch
from multiprocess import run_processes

from mmkernel.engine import ConfigError, Runner, load_config, runner, train
from mmkernel.engine.hooks import unwrap
from mmkernel.planning.dry_run import make_plan

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
LEFT_OUT = dict(affine=None, noise=None, erase=None)
OPS = dict(LEFT_OUT, flip=dict(type='RandomFlip'), solarize=dict(type='Solarize'))
VARIANTS = {
    'plain': ('sfrik/digits_L3', {}),
    'workers, and kNN': ('sfrik/digits_L3', {'train_dataloader.num_workers': 1, 'default_hooks.knn.interval': 1}),
    'half precision': ('sfrik/digits_L3', {'optim_wrapper.precision': 'bfloat16'}),
    'channels last': ('sfrik/digits_L3', {'channels_last': True}),
    'accumulation and a momentum target': ('byol/digits', {'optim_wrapper.accumulative_counts': 2}),
    'virtual batch': ('simclr/digits', {'train_cfg.virtual_batch': 64}),
    'queue and probe': ('moco/digits_v2', {'custom_hooks': [dict(type='OnlineProbeHook', max_images=60)]}),
    'clusters, first pass': ('deepcluster/digits_v2', {}),
    'classifier': ('benchmarks/linear_digits', {'model.backbone.channels': ..., 'param_scheduler.warmup_epochs': ...}),
}
SLOW = ('half precision', 'channels last', 'clusters, first pass', 'classifier')


def config(folder, name, changes, epochs=1):
    small = {
        'train_dataloader.batch_size': 32,
        'train_dataloader.num_workers': 0,
        'train_dataloader.num_batch_per_epoch': 4,
        'train_dataloader.dataset.exact': False,
        'train_dataloader.dataset.views_on': 'device',
        'train_dataloader.dataset.views.both.ops': OPS,
        'model.backbone.channels': (4, 4, 4, 8),
        'train_cfg.max_epochs': epochs,
        'param_scheduler.warmup_epochs': 0,
        'default_hooks.checkpoint.interval': 1,
        'log_level': 'ERROR',
    }
    given = {key: value for key, value in {**small, **changes}.items() if value is not ...}
    cfg = load_config(CONFIGS / f'{name}.py', given)
    cfg.work_dir = str(folder)
    return cfg


def finish_beforehand(dataset, model):
    """Instead of ``place_views``: the preprocessor gets finished bytes, as from the workers."""
    finish, forward = dataset.place('cpu'), model.data_preprocessor.forward

    def finished(data, training=False):
        rest = {key: value for key, value in data.items() if key != 'drawn'}
        made = finish(data['inputs'], data['drawn'])
        return forward({**rest, 'inputs': [view.to(torch.uint8) for view in made]}, training)

    model.data_preprocessor.forward = finished


def weights(cfg, resume=False):
    run = train(cfg, resume=resume)
    return {name: value.clone() for name, value in unwrap(run.model).state_dict().items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize('name', [pytest.param(v, marks=pytest.mark.slow) if v in SLOW else v for v in VARIANTS])
def test_the_steps_are_those_on_finished_pictures(name, tmp_path, monkeypatch):
    cfg = config(tmp_path / 'device', *VARIANTS[name])
    ours = weights(cfg)
    monkeypatch.setattr(runner, 'place_views', finish_beforehand)
    cfg.work_dir = str(tmp_path / 'beforehand')
    assert_same(ours, weights(cfg))


def on_rank(rank, world_size, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    found = []
    for place in (runner.place_views, finish_beforehand):
        runner.place_views = place
        cfg = config(folder / place.__name__, 'sfrik/digits_L3', {'launcher': 'pytorch'})
        found.append(weights(cfg))
    return found


def test_two_processes(tmp_path):
    ranks = run_processes(on_rank, 2, tmp_path)
    for device, beforehand in ranks:
        assert_same(device, beforehand)
    parameters = {name: value for name, value in ranks[0][0].items() if 'running' not in name}
    assert_same(parameters, {name: ranks[1][0][name] for name in parameters})


def test_one_epoch_and_one_resumed_equal_two(tmp_path):
    cfg = config(tmp_path, 'sfrik/digits_L3', {}, epochs=2)
    straight = weights(cfg)
    (tmp_path / 'epoch_2.pth').unlink()
    cfg.train_dataloader.num_workers = 1
    assert_same(straight, weights(cfg, resume=True))


def test_by_itself_a_run_on_a_cpu_has_its_views_from_the_workers(tmp_path):
    run = Runner.from_cfg(config(tmp_path, 'sfrik/digits_L3', {'train_dataloader.dataset.views_on': 'auto'}))
    assert 'drawn' not in next(iter(run.train_dataloader))
    assert run.model.data_preprocessor.finish is None


def test_a_preprocessor_that_finishes_nothing(tmp_path):
    other = dict(_delete_=True, type='BaseDataPreprocessor')
    cfg = config(tmp_path, 'sfrik/digits_L3', {'data_preprocessor': other})
    words = "views_on='device': data_preprocessor is a BaseDataPreprocessor, which finishes no views"
    with pytest.raises(ConfigError, match=words):
        train(cfg)
    with pytest.raises(ConfigError, match=words):
        make_plan(cfg, 1)
