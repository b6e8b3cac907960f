"""Classifiers through the Runner: linear and fine-tuned, from a checkpoint that must fit, on labels that must exist."""

from pathlib import Path

import pytest
import torch

from mmkernel.engine import CheckpointError, load_config, read_checkpoint, write_checkpoint
from mmkernel.evaluation import (
    accuracy,
    choose_options,
    fine_tune,
    semi_supervised,
    untrained_encoder,
    with_encoder,
    with_labels,
)
from mmkernel.models import build_model

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SMALL = {
    'log_level': 'ERROR',
    'train_cfg.max_epochs': 2,
    'train_dataloader.dataset.source.split': 'test',
    'evaluation.train.split': 'test',
    'default_hooks.accuracy.interval': 1,
}


@pytest.fixture(scope='module')
def pretraining():
    return load_config(CONFIGS / 'sfrik/digits_L3.py', {'model.backbone.channels': (4, 4, 8, 8)})


@pytest.fixture(scope='module')
def checkpoint(pretraining, tmp_path_factory):
    path = tmp_path_factory.mktemp('pretrained') / 'epoch_20.pth'
    write_checkpoint(dict(state_dict=untrained_encoder(pretraining, seed=3).state_dict()), path)
    return path


def protocol(pretraining, folder, name='linear_digits', **options):
    cfg = with_encoder(load_config(CONFIGS / f'benchmarks/{name}.py', {**SMALL, **options}), pretraining)
    cfg.work_dir = str(folder)
    return cfg


def weights(path, prefix='backbone.'):
    state = read_checkpoint(path)['state_dict']
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def test_linear_protocol(pretraining, checkpoint, tmp_path):
    cfg = protocol(pretraining, tmp_path)
    found = fine_tune(cfg, checkpoint)
    assert [row['epoch'] for row in found['history']] == [1, 2]
    assert found['last'] == found['history'][-1]
    assert (found['top1'], found['top5']) == (found['last']['top1'], found['last']['top5'])
    assert found['best']['top1'] == max(row['top1'] for row in found['history'])
    assert (found['images'], found['width']) == (360, 8)
    assert found['checkpoint'] == str(tmp_path / 'epoch_2.pth')
    own, given = weights(found['checkpoint']), weights(checkpoint)
    assert own.keys() == given.keys()
    assert all(torch.equal(own[key], given[key]) for key in own)  # frozen: batch-norm statistics too
    model = build_model(cfg)
    model.load_state_dict(read_checkpoint(found['checkpoint'])['state_dict'])
    assert accuracy(model, cfg.evaluation) == pytest.approx({k: v for k, v in found['last'].items() if k != 'epoch'})


def test_a_resumed_run_keeps_its_history_and_is_the_same_run(pretraining, checkpoint, tmp_path):
    cfg = protocol(
        pretraining, tmp_path, **{'default_hooks.checkpoint.interval': 1, 'default_hooks.checkpoint.max_keep': 2}
    )
    straight = fine_tune(cfg, checkpoint)
    (tmp_path / 'epoch_2.pth').unlink()
    assert fine_tune(cfg, checkpoint, resume=True)['history'] == straight['history']


def test_fine_tuning_moves_the_backbone_at_its_own_rate(pretraining, checkpoint, tmp_path):
    cfg = protocol(pretraining, tmp_path, 'semi_digits', **{'default_hooks.checkpoint.interval': 1})
    found = fine_tune(cfg, checkpoint)
    groups = read_checkpoint(found['checkpoint'])['optimizer']['param_groups']
    assert [group['initial_lr'] for group in groups] == [0.1, 0.01]
    own, given = weights(found['checkpoint']), weights(checkpoint)
    assert not any(torch.equal(own[key], given[key]) for key in own if 'num_batches' not in key)


def test_a_checkpoint_of_another_backbone_is_refused(pretraining, checkpoint, tmp_path):
    cfg = protocol(pretraining, tmp_path)
    cfg.model.backbone.channels = (4, 4, 8, 12)
    with pytest.raises(CheckpointError, match='another architecture: '):
        fine_tune(cfg, checkpoint)
    partial = tmp_path / 'partial.pth'
    state = read_checkpoint(checkpoint)['state_dict']
    write_checkpoint(dict(state_dict={k: v for k, v in state.items() if k != 'backbone.conv1.weight'}), partial)
    with pytest.raises(CheckpointError, match=r'1 missing, .*missing: conv1\.weight'):
        fine_tune(protocol(pretraining, tmp_path), partial)


def test_a_head_that_was_never_trained_is_not_tested(pretraining, tmp_path):
    cfg = protocol(pretraining, tmp_path)
    with pytest.raises(ValueError, match='never been trained'):
        accuracy(build_model(cfg), cfg.evaluation)


def test_labels_must_exist_and_fit(pretraining, tmp_path):
    cfg = protocol(pretraining, tmp_path, **{'model.num_classes': 9})
    with pytest.raises(ValueError, match=r'labels up to 9, but model\.num_classes=9; expected at least 10'):
        fine_tune(cfg)
    cfg = protocol(pretraining, tmp_path)
    cfg.train_dataloader.dataset.source = dict(type='ImageFolder', root=str(images(tmp_path)), mode='L')
    with pytest.raises(ValueError, match='2 of 2 images have no label.*Without labels these still work'):
        fine_tune(cfg)


def images(folder):
    from PIL import Image

    (folder / 'images').mkdir()
    for i in range(2):
        Image.new('L', (16, 16)).save(folder / 'images' / f'{i}.png')
    return folder / 'images'


def test_a_pretraining_config_is_no_protocol(pretraining):
    with pytest.raises(ValueError, match='is a JointEmbedding; expected a Classifier'):
        with_encoder(pretraining, pretraining)


def test_amounts_of_labels(pretraining, checkpoint, tmp_path):
    cfg = protocol(pretraining, tmp_path, 'semi_digits', **{'train_cfg.max_epochs': 1})
    part = with_labels(cfg, per_class=2, seed=5)
    assert part.train_dataloader.dataset.source == dict(
        type='Subset', source=dict(type='Digits', split='test', size=16), per_class=2, seed=5
    )
    assert cfg.train_dataloader.dataset.source.type == 'Digits'
    found = semi_supervised(cfg, checkpoint, [dict(per_class=2), dict(fraction=0.5), {}], (0, 1), tmp_path / 'runs')
    assert list(found) == ['2 per class', '50 %', 'as configured']
    assert [row['images'] for row in found.values()] == [20, 180, 360]
    assert all(len(row['values']) == 2 for row in found.values())
    assert (tmp_path / 'runs/50_percent/1').is_dir()


def test_settings_are_chosen_on_held_out_training_images(pretraining, checkpoint, tmp_path):
    cfg = protocol(pretraining, tmp_path, **{'train_cfg.max_epochs': 1})
    cfg.evaluation.test = dict(type='NoSuchSource')  # the test set is not touched
    key = 'optim_wrapper.optimizer.lr'
    chosen, tried = choose_options(cfg, checkpoint, {key: [1e38, 0.4, 1.0]}, 0.2, folder=tmp_path / 'tried')
    assert [each['options'][key] for each in tried][1:] == [0.4, 1.0]
    assert tried[0]['top1'] is None  # diverged
    assert chosen == max(tried[1:], key=lambda each: each['top1'])['options']
    with pytest.raises(ValueError, match='Every one of the 1 combinations diverged'):
        choose_options(cfg, checkpoint, {key: [1e38]}, folder=tmp_path / 'tried')
    with pytest.raises(ValueError, match=r'at least one \{key: \[values\]\}'):
        choose_options(cfg, checkpoint, {key: 0.4})
    with pytest.raises(ValueError, match='held_out=1; expected a fraction'):
        choose_options(cfg, checkpoint, {key: [0.4]}, held_out=1)
    cfg.evaluation.metric = 'map11'
    with pytest.raises(ValueError, match="metric='map11'; this classifier is judged by top1, top5, mean_per_class"):
        choose_options(cfg, checkpoint, {key: [0.4]})


def test_epochs_and_settings_are_chosen_by_the_metric_of_the_set(pretraining, checkpoint, tmp_path):
    cfg = protocol(pretraining, tmp_path, **{'train_cfg.max_epochs': 4, 'optim_wrapper.optimizer.lr': 3.0})
    cfg.evaluation.metric = 'mean_per_class'
    found = fine_tune(cfg, checkpoint)
    assert found['best'] == max(found['history'], key=lambda row: row['mean_per_class'])
    chosen, tried = choose_options(cfg, checkpoint, {'train_cfg.max_epochs': [1, 4]}, 0.2, folder=tmp_path / 'tried')
    assert {key for each in tried for key in each} == {'options', 'mean_per_class'}
    assert chosen == max(tried, key=lambda each: each['mean_per_class'])['options']
