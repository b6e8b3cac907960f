"""Images of several classes: from the folder through training to the table, on one process as on two, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from multiprocess import run_processes
from photographs import write_voc
from torch import nn

from mmkernel.datasets import VOC2007, CorruptImageError, Digits, EvaluationDataset, Source, Subset, ViewDataset
from mmkernel.engine import load_config
from mmkernel.evaluation import accuracy, choose_options, class_precisions, fine_tune, semi_supervised, with_encoder
from mmkernel.evaluation.classifier_metrics import OneClassMetrics, SeveralClassesMetrics
from mmkernel.models import Classifier, JointEmbedding

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    return str(write_voc(tmp_path_factory.mktemp('voc')))


def classifier():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 6))
    backbone.out_dim = 6
    model = Classifier(backbone, num_classes=2, head_std=1.0, objective=dict(type='SeveralClasses'))
    model.commit()
    return model


def part(voc):
    return dict(test=dict(type='VOC2007', root=voc, split='test'), transform=None, batch_size=8, num_workers=0)


def protocol(voc, folder, **options):
    small = {
        'log_level': 'ERROR', 'model.num_classes': 2, 'train_cfg.max_epochs': 2, 'default_hooks.accuracy.interval': 1,
        'train_dataloader.batch_size': 12, 'train_dataloader.num_workers': 0, 'evaluation.num_workers': 0,
        'train_dataloader.dataset.views.only.size': 16, 'evaluation.transform.resize': 16, 'evaluation.transform.crop': 16,
        'train_dataloader.dataset.source.root': voc, 'train_dataloader.dataset.source.mode': 'L',
        'evaluation.test.root': voc, 'evaluation.test.mode': 'L',
    }  # fmt: skip
    cfg = load_config(CONFIGS / 'benchmarks/finetune_voc2007.py', {**small, **options})
    pretraining = load_config(CONFIGS / 'sfrik/digits_L3.py', {'model.backbone.channels': (4, 4, 8, 8)})
    cfg = with_encoder(cfg, pretraining)
    cfg.work_dir = str(folder)
    return cfg


def test_targets_travel_with_the_images(voc):
    source = VOC2007(voc, 'trainval')
    views = dict(only=dict(count=1, size=None, crop=None))
    for dataset, key in ((EvaluationDataset(source), 3), (ViewDataset(source, views), (0, 3))):
        assert dataset[key]['targets'].tolist() == source.targets[3].tolist()
        assert dataset[key]['label'] == -1
    some = Subset(source, fraction=0.5)
    assert some.targets.tolist() == source.targets[some.rows].tolist()
    assert 'targets' not in EvaluationDataset(Digits('test'))[0]
    assert not hasattr(Subset(Digits('test'), fraction=0.5), 'targets')


def test_pretraining_takes_such_images_too():
    model = JointEmbedding(
        backbone=dict(type='TIMMBackbone', model_name='resnet10t', in_channels=1),
        neck=dict(type='MLPNeck', dims=(8,)),
        head=dict(type='VarianceCovarianceHead'),
    ).eval()
    images = [torch.randn(4, 1, 16, 16) for _ in range(2)]
    assert model(inputs=images) == model(inputs=images, targets=torch.zeros(4, 3))


def test_scores_are_those_of_the_precisions(voc):
    model, source = classifier(), VOC2007(voc, 'test')
    found = accuracy(model, part(voc))
    images = torch.stack([torch.tensor(source.image(i)).permute(2, 0, 1) for i in range(len(source))])
    logits = model.extract(images, stage='head')
    for name, points in (('map11', '11'), ('map', 'all')):
        expected = np.mean([*class_precisions(source.targets, logits, points=points).values()])
        assert found[name] == pytest.approx(expected)
    given = model.objective(logits, torch.from_numpy(source.targets))
    assert found['loss'] == pytest.approx(given['loss_classification'].item())
    assert (source.targets == -1).any()


def on_two(rank, world_size, voc):
    assert dist.get_world_size() == world_size
    return accuracy(classifier(), part(voc))


def test_two_processes_rank_all_images(voc):
    alone = accuracy(classifier(), part(voc))
    for found in run_processes(on_two, 2, voc):
        assert found == pytest.approx(alone)


def test_from_the_folder_to_the_scores(voc, tmp_path):
    cfg = protocol(voc, tmp_path)
    found = fine_tune(cfg)
    assert [set(row) for row in found['history']] == [{'epoch', 'map11', 'map', 'loss'}] * 2
    assert (found['map11'], found['map']) == (found['last']['map11'], found['last']['map'])
    assert found['best']['map11'] == max(row['map11'] for row in found['history'])
    assert found['images'] == 36


def test_few_labels_and_choice_of_settings(voc, tmp_path):
    cfg = protocol(voc, tmp_path, **{'train_cfg.max_epochs': 1})
    found = semi_supervised(cfg, None, [dict(fraction=0.5)], (0,), tmp_path / 'few')
    assert (found['50 %']['images'], found['50 %']['metric']) == (18, 'map11')
    key = 'optim_wrapper.optimizer.lr'
    chosen, tried = choose_options(cfg, None, {key: [1e30, 0.1]}, 0.3, folder=tmp_path / 'tried')
    assert chosen == {key: 0.1}
    assert tried[0]['map11'] is None
    with pytest.raises(ValueError, match='36 of 36 images have no label'):
        semi_supervised(cfg, None, [dict(per_class=2)], (0,), tmp_path / 'few')


class Damaged(Source):
    """Images 1 and 3 of four cannot be decoded: 2 and 0 stand in for them."""

    def __init__(self):
        super().__init__('skip')
        self.labels, self.classes = np.arange(4), list('abcd')

    def read(self, i):
        if i % 2:
            raise CorruptImageError(f'{i} cannot be decoded.')
        return np.full((4, 4, 3), i, np.uint8)


@pytest.mark.filterwarnings('ignore:.*cannot be decoded')
def test_substitutes_are_tested_as_often_as_they_stand_in():
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
    backbone.out_dim = 6
    model = Classifier(backbone, num_classes=4)
    model.commit()
    with torch.no_grad():
        model.head.bias[2] = 1e3
    found = accuracy(model, dict(test=Damaged(), batch_size=3, num_workers=0))
    assert (found['top1'], found['mean_per_class'], found['top5']) == (50, 50, 100)  # of labels 0, 2, 2, 0
    model.head.bias.data[0] = 1e4
    assert accuracy(model, dict(test=Damaged(), batch_size=3, num_workers=0))['top1'] == 50


class Given:
    def __init__(self, targets, classes=('bus', 'cat')):
        self.targets, self.classes = np.array(targets), list(classes)
        self.labels = np.full(len(targets), -1)

    def __len__(self):
        return len(self.targets)


BOTH, NO_CAT = [[1, 0], [0, 1], [1, -1]], [[1, 0], [0, 0], [1, -1]]


def test_a_class_that_no_training_image_shows_is_named():
    with pytest.warns(UserWarning, match='no training image of cat .* average precision says nothing'):
        SeveralClassesMetrics.check(dict(training=Given(NO_CAT), test=Given(BOTH)), 2)
    with pytest.raises(ValueError, match='No training image shows any of the 2 classes'):
        SeveralClassesMetrics.check(dict(training=Given([[0, 0], [0, -1]]), test=Given(BOTH)), 2)


def test_a_class_that_no_test_image_shows_is_left_out_of_the_mean():
    judge = SeveralClassesMetrics(2, 3)
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 5.0]])
    judge.add(torch.arange(3), logits, dict(targets=torch.tensor(NO_CAT)))
    with pytest.warns(UserWarning, match='no test image of class 1'):
        assert judge.scores(judge.sums)['map11'] == 100
    with pytest.raises(ValueError, match='No test image shows any'):  # before training, not after an epoch of it
        SeveralClassesMetrics.check(dict(training=Given(BOTH), test=Given([[0, -1]])), 2)


def test_a_classifier_that_has_diverged_is_not_ranked():
    judge = SeveralClassesMetrics(2, 3)
    judge.add(torch.arange(3), torch.full((3, 2), float('nan')), dict(targets=torch.tensor(BOTH)))
    with pytest.raises(ValueError, match='3 of 3 test images are NaN or infinite: the classifier has diverged'):
        judge.scores(judge.sums)


@pytest.mark.parametrize(
    'judge, training, test, message',
    [
        (SeveralClassesMetrics, Given(BOTH), Given(BOTH, ('cat', 'cow')), 'different classes: cow is not.* .2.: bus, cat; test '),
        (SeveralClassesMetrics, Given([[1], [0]], ('bus',)), Given([[1]], ('bus',)), r'shape \(2, 1\).*Set model\.num_classes=1'),
        (SeveralClassesMetrics, Digits('test'), Given(BOTH), r'have one class each; .*expect targets of shape \(360, 2\)'),
        (OneClassMetrics, Given(BOTH), Given(BOTH), r'of several classes each. Set model\.objective=.*finetune_voc2007'),
    ],
)  # fmt: skip
def test_refused_before_training(judge, training, test, message):
    with pytest.raises(ValueError, match=message):
        judge.check(dict(training=training, test=test), 2)
