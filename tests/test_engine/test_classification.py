"""Accuracy after each epoch, on one process as on several, and weights for a backbone."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmkernel.datasets import Digits
from mmkernel.engine import AccuracyHook, CheckpointError, load_config, read_checkpoint, train, write_checkpoint
from mmkernel.evaluation import accuracy, classifier_metrics
from mmkernel.evaluation.classifier_metrics import OneClassMetrics
from mmkernel.models import build_model

PART = dict(test=dict(type='Digits', split='test', size=16), transform=None, batch_size=100, num_workers=0)


def classifier():
    """Trained in no other sense than that its counter says so."""
    torch.manual_seed(0)
    backbone = dict(type='TIMMBackbone', model_name='resnet10t', in_channels=1)
    cfg = dict(model=dict(type='Classifier', backbone=backbone, num_classes=10, head_std=1.0))
    model = build_model(cfg)
    model.commit()
    return model


def test_accuracy_is_that_of_all_images_whatever_the_processes():
    model = classifier()
    expected = accuracy(model, PART)
    source = Digits('test')
    images = torch.stack([torch.from_numpy(source.image(i)).permute(2, 0, 1) for i in range(360)])
    right = model.extract(images, stage='head').argmax(1) == torch.as_tensor(source.labels)
    assert expected['top1'] == pytest.approx(100 * right.float().mean().item())
    of_class = [right[torch.as_tensor(source.labels) == k].float().mean().item() for k in range(10)]
    assert expected['mean_per_class'] == pytest.approx(100 * sum(of_class) / 10)


def test_what_the_ranks_sum_up_is_what_one_process_does(monkeypatch):
    """Every image on exactly one of three ranks; the collective itself is mmengine's."""
    model, sums = classifier(), {}
    for rank, world_size in [(0, 1), (0, 3), (1, 3), (2, 3)]:
        monkeypatch.setattr(classifier_metrics, 'get_dist_info', lambda at=(rank, world_size): at)
        monkeypatch.setattr(
            classifier_metrics, 'all_reduce', lambda x, at=(rank, world_size): sums.__setitem__(at, x.clone())
        )
        accuracy(model, PART)
    torch.testing.assert_close(sums[0, 3] + sums[1, 3] + sums[2, 3], sums[0, 1])


class Renamed(Digits):
    """The digits with their classes in another order, or under other names."""

    def __init__(self, names):
        super().__init__('test')
        self.labels = np.array([names.index(str(k)) if str(k) in names else 0 for k in self.labels])
        self.classes = list(names)


def test_test_images_are_judged_under_the_names_of_the_training_classes():
    model = classifier()
    expected, names = accuracy(model, PART), tuple('0123456789')
    other_order = dict(PART, test=Renamed(names[::-1]))
    assert accuracy(model, other_order, names) == pytest.approx(expected)
    assert accuracy(model, other_order)['top1'] != pytest.approx(expected['top1'])  # nobody says what is what
    OneClassMetrics.check(dict(training=Digits('train'), test=Renamed(names[::-1])), 10)
    with pytest.raises(ValueError, match='x is not among those of the training.*0, 1, 2.*test .10.: x, 1, 2'):
        accuracy(model, dict(PART, test=Renamed(('x', *names[1:]))), names)


def test_hook_needs_something_to_measure_on(tmp_path, repository):
    cfg = load_config(repository / 'configs/benchmarks/linear_digits.py', {'log_level': 'ERROR'})
    cfg.work_dir = str(tmp_path)
    cfg = Config({key: value for key, value in cfg._cfg_dict.items() if key != 'evaluation'})
    with pytest.raises(ValueError, match="which has no 'evaluation' part"):
        train(cfg)
    with pytest.raises(ValueError, match='AccuracyHook.interval=0'):
        AccuracyHook(interval=0)


def one_epoch(repository, folder):
    path = repository / 'configs/benchmarks/linear_digits.py'
    small = {'log_level': 'ERROR', 'train_cfg.max_epochs': 1, 'train_dataloader.dataset.source.split': 'test'}
    cfg = load_config(path, {**small, 'model.backbone.channels': (4, 4, 8, 8)})
    cfg.work_dir = str(folder)
    return cfg


def test_a_checkpoint_says_what_its_classifier_tells_apart(tmp_path, repository):
    train(one_epoch(repository, tmp_path))
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['classes'] == list('0123456789')


def test_a_plain_state_dict_of_the_backbone_will_do(tmp_path, repository):
    cfg = one_epoch(repository, tmp_path)
    given = build_model(cfg).backbone.state_dict()
    write_checkpoint(given, tmp_path / 'backbone.pth')
    cfg.default_hooks.weights = dict(type='BackboneWeightsHook', checkpoint=str(tmp_path / 'backbone.pth'))
    own = train(cfg).model.backbone.state_dict()
    assert all(torch.equal(own[key], given[key]) for key in given)


def test_a_file_of_another_code_base_for_rgb_will_do_for_grey_images(tmp_path, repository):
    cfg = one_epoch(repository, tmp_path)
    given = build_model(cfg).backbone.state_dict()
    theirs = {**given, 'conv1.weight': torch.randn(64, 3, 3, 3)}
    state = {f'module.encoder.{key}': value for key, value in theirs.items()}
    write_checkpoint(dict(state_dict={**state, 'module.predictor.0.weight': torch.ones(2, 2)}), tmp_path / 'theirs.pth')
    hook = cfg.default_hooks.weights = dict(type='BackboneWeightsHook', checkpoint=str(tmp_path / 'theirs.pth'))
    with pytest.raises(CheckpointError, match=r'3 channels, the model takes 1: .* adapt_input=True'):
        train(cfg)
    cfg.default_hooks.weights = dict(**hook, adapt_input=True)
    own = train(cfg).model.backbone.state_dict()
    assert torch.equal(own['conv1.weight'], theirs['conv1.weight'].sum(1, keepdim=True))
    assert torch.equal(own['layer1.0.conv1.weight'], given['layer1.0.conv1.weight'])
