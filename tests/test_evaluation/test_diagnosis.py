import inspect
import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

from mmkernel.engine import load_config
from mmkernel.evaluation.cloud import CloudStatistics, cloud_statistics
from mmkernel.evaluation.diagnosis import COLLAPSED, DOUBTFUL, HEALTHY, Threshold, judge, reference, run_kernel
from mmkernel.evaluation.remedies import remedy
from mmkernel.kernels import LegendreKernel, RieszKernel
from mmkernel.models import build_model
from mmkernel.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2]


def cloud(n=256, q=64, rank=64, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, rank, generator=g) @ torch.randn(rank, q, generator=g)


def views(z, noise=0.05):
    return z, z + noise * z.norm(dim=1).mean() / z.shape[1] ** 0.5 * torch.randn(z.shape, generator=torch.Generator())


class Model(nn.Module):
    def __init__(self, head, **parts):
        super().__init__()
        self.head = MODELS.build(head) if isinstance(head, dict) else head
        for name, part in parts.items():
            setattr(self, name, part)


def kernel_model(*weights, **head):
    kernel = dict(type='LegendreKernel', weights=weights)
    return Model(dict(type='KernelMMDHead', kernel=kernel, **head))


def test_a_round_cloud_is_healthy():
    z = cloud()
    found = judge(cloud_statistics(z, views=views(z)), kernel_model(1.0, 40.0, 40.0))
    assert found.state == HEALTHY
    assert 'of 64' in found.verdict
    assert 'LegendreKernel(weights=(1.0, 40.0, 40.0))' in found.findings[-1]
    assert str(found).startswith('healthy: ')


@pytest.mark.parametrize(
    'model, cause',
    [
        (kernel_model(40.0), 'as expected of an L = 1 kernel, which sees the mean alone; raise the order or b_2'),
        (kernel_model(1.0, 0.0, 40.0), 'a kernel with b_2 = 0, which is blind to the covariance; raise b_2'),
        (kernel_model(1.0, 40.0, alignment_weight=300.0), 'raise kernel_weight or lower alignment_weight (now 300)'),
        (
            Model(dict(type='VarianceCovarianceHead', covariance_weight=0.0)),
            'covariance_weight = 0: nothing decorrelates the dimensions; raise it',
        ),
        (
            Model(dict(type='SumHead', heads=dict(a=dict(type='CosinePredictionHead'), b=dict(
                type='VarianceCovarianceHead', covariance_weight=0.0)))),
            'covariance_weight = 0',
        ),
        (None, 'raise the weight of the term that spreads'),
    ],
)  # fmt: skip
def test_a_line_is_dimensional_collapse_with_its_cause(model, cause):
    z = cloud(rank=1) + 0.005 * cloud()
    found = judge(cloud_statistics(z, views=views(z)), model)
    assert found.state == COLLAPSED
    assert found.verdict.startswith('99 % of the variance in ')
    assert 'dimensional collapse' in found.verdict
    assert cause in found.verdict


@pytest.mark.parametrize(
    'model, cause',
    [
        (kernel_model(1.0, 40.0, 40.0, kernel_weight=0.0), 'kernel_weight = 0: nothing pushes embeddings apart'),
        (kernel_model(1.0, 40.0, 40.0, alignment_weight=1e4), 'lower alignment_weight (now 10000)'),
        (
            Model(
                dict(type='CosinePredictionHead'),
                predictor=nn.Identity(),
                target=MODELS.build(dict(type='OnlineTarget')),
            ),
            'a predictor whose target is trained along',
        ),
        (None, 'lower the learning rate'),
    ],
)
def test_a_point_is_complete_collapse_with_its_cause(model, cause):
    z = 1 + 1e-3 * cloud()
    found = judge(cloud_statistics(z, views=views(z)), model)
    assert found.state == COLLAPSED
    assert 'complete collapse' in found.verdict
    assert cause in found.verdict


def terms(head):
    """The head, or those that it sums."""
    return head['heads'].values() if 'heads' in head else [head]


def test_only_weights_that_the_head_has_are_named():
    """Whatever is wrong with the embeddings of a digits recipe."""
    heads = {}
    for path in (CONFIGS / 'configs').glob('[!_]*/digits*.py'):
        cfg = load_config(path)
        heads.setdefault(str(cfg.model.head), cfg)
    assert len(heads) > 20
    for cfg in heads.values():
        model = build_model(cfg)
        known = {
            key for part in terms(cfg.model.head) for key in inspect.signature(MODELS.get(part['type'])).parameters
        }
        for statistic in ('std', 'rank', 'retrieval'):
            for state in (DOUBTFUL, COLLAPSED):
                text = remedy(statistic, state, model)
                assert set(re.findall(r'\w+_weight', text)) <= known, text
                assert 'the weight of the' not in text


def test_a_kernel_alone_does_not_make_a_kernel_weight():
    head = dict(type='EntropyHead', kernel=dict(type='RBFKernel'), alignment_weight=2.0)
    assert remedy('rank', COLLAPSED, Model(head)) == (
        'raise density_weight (now 1) or lower alignment_weight (now 2), or train longer'
    )
    assert 'no weight of a term that spreads' in remedy('rank', COLLAPSED, Model(dict(type='InfoNCEHead')))
    assert 'raise alignment_weight (now 2)' in remedy('retrieval', DOUBTFUL, Model(head))


def test_without_views_nobody_is_called_a_point():
    found = judge(cloud_statistics(1 + 1e-3 * cloud()))
    assert found.state == DOUBTFUL
    assert 'point nearly the same way' in found.verdict
    assert 'harmless if' in found.verdict


@pytest.mark.parametrize('z', [torch.zeros(60, 8), torch.rand(60, 1) * torch.ones(8)], ids=['zeros', 'a ray'])
def test_no_variance_at_all_is_complete_collapse_without_views_too(z):
    found = judge(cloud_statistics(z))
    assert found.state == COLLAPSED
    assert 'complete collapse' in found.verdict


def test_views_that_do_not_agree_are_doubtful():
    z = cloud()
    found = judge(cloud_statistics(z, views=(z, cloud(seed=1))))
    assert found.state == DOUBTFUL
    assert 'second view' in found.verdict
    assert 'augmentations' in found.verdict


@pytest.mark.parametrize('q', [2, 3, 4])
def test_a_width_without_room_for_the_rank_of_healthy_runs_is_no_collapse(q):
    found = judge(cloud_statistics(cloud(q=q, rank=q)))
    assert (found.state, found.verdict.endswith('as far as so small a width can tell.')) == (HEALTHY, True)
    point = torch.ones(256, q) + 1e-3 * cloud(q=q, rank=q)
    assert judge(cloud_statistics(point, views=(point, point.flip(0)))).state == COLLAPSED


@pytest.mark.parametrize('n', [2, 3, 5])
def test_few_images_tell_nothing(n):
    found = judge(cloud_statistics(cloud(n=n)))
    assert (found.state, found.verdict) == (DOUBTFUL, f'{n} images are too few to tell: take some hundreds (--images).')


def test_the_number_of_rivals_is_that_of_the_images():
    z = cloud(n=40)
    assert 'among 40 images (chance: 2.5 %)' in str(judge(cloud_statistics(z, views=views(z))))


def test_without_views_or_kernel_it_still_speaks():
    found = judge(cloud_statistics(cloud()), Model(dict(type='VarianceCovarianceHead')))
    assert found.state == HEALTHY
    assert 'a yardstick' in found.findings[-1]
    assert not any('two views' in line for line in found.findings)


def test_kernel_of_a_run():
    assert isinstance(run_kernel(kernel_model(1.0)), LegendreKernel)
    nested = dict(type='SumHead', heads=dict(a=dict(type='KernelMMDHead', kernel=dict(type='RieszKernel'))))
    assert isinstance(run_kernel(Model(nested)), RieszKernel)
    assert run_kernel(Model(dict(type='CosinePredictionHead'))) is None
    assert run_kernel(None) is None


def test_thresholds_are_those_measured(repository):
    """The numbers in the package are those of docs/diagnosis_thresholds.json, and separate its runs as they claim."""
    measured = json.loads((repository / 'docs/diagnosis_thresholds.json').read_text())
    limits = reference()['thresholds']
    assert {name: Threshold(**limit) for name, limit in measured['thresholds'].items()} == limits
    for name, limit in limits.items():
        assert 0 < limit.collapsed < limit.cut < limit.healthy, name
        healthy = [row[name] for row in measured['rows'] if row['state'] == 'healthy' and row[name] is not None]
        assert min(healthy) == limit.healthy
    names = [field.name for field in fields(CloudStatistics)]
    for row in measured['rows']:
        found = judge(CloudStatistics(**{name: row[name] for name in names}))
        assert row['state'] in (None, found.state), (row['name'], row['seed'])
    states = {(row['name'], row['state']) for row in measured['rows']}
    assert ('sfrik/digits_L1', 'collapsed') in states
    assert ('sfrik/digits_L3', 'healthy') in states
    assert len(reference()['runs']) == sum(row['state'] is not None for row in measured['rows'])
