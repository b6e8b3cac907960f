"""A neck whose last layer lies on W ranks: value and gradients of every objective with a columns form, against one process."""

import copy

import pytest
import torch
from multiprocess import run_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmkernel.distributed.shards import Shard, share_of
from mmkernel.engine import LARS
from mmkernel.engine.clipping import whole_norm
from mmkernel.engine.wrapping import wrap_model
from mmkernel.models import JointEmbedding, necks
from mmkernel.models.sharded import shards_of

WIDTHS = (24, 22)  # 22 is no multiple of 4
LOCAL, VIEWS = 3, 3


def legendre(*weights):
    return dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=weights), alignment_weight=3.0)


HEADS = dict(
    L1=legendre(1.0),
    L2=legendre(1.0, 40.0),
    L3=dict(legendre(1.0, 40.0, 40.0), reduction='element', alignment_weight=40.0),
    rbf=dict(type='KernelMMDHead', kernel=dict(type='RBFKernel', scale=2.5), statistic='U', log=True, layout='columns'),
    to_mean=dict(legendre(1.0, 40.0), align='mean', scale_by_rows=True, statistic='U'),
    variance=dict(type='VarianceCovarianceHead'),
    variance_to_mean=dict(type='VarianceCovarianceHead', align='mean', reduction='sample'),
    correlation=dict(type='CrossCorrelationHead', off_diagonal_weight=0.1),
    sum=dict(type='SumHead', heads=dict(a=legendre(1.0, 40.0, 40.0), b=dict(type='VarianceCovarianceHead'))),
)
TARGETS = [None, dict(type='StopGradientTarget'), dict(type='MomentumTarget')]


class Flat(nn.Sequential):
    """No batch norm: on a CPU its statistics would be those of a process."""

    out_dim = 10

    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(12, 10), nn.Tanh())


def build(head, q, sharded, target=None, dims=(14,), layers=True, **neck):
    torch.manual_seed(0)
    neck = dict(dict(type='MLPNeck', dims=(*dims, q), sharded=sharded and layers, last_bias=True), **neck)
    return JointEmbedding(Flat(), neck, head, target=target).double()


def images(count):
    """Rows as different from each other as rank from rank."""
    x = torch.linspace(-2, 3, VIEWS * count * 12, dtype=torch.float64).view(VIEWS, count, 3, 2, 2)
    return list((x * 7).sin() + x * torch.arange(1.0, count + 1)[:, None, None, None] / count)


def loss_of(model, inputs):
    losses = model(inputs=inputs)
    return sum(value for name, value in losses.items() if name.startswith('loss_')), losses


def after_a_step(model):
    LARS(model.parameters(), lr=0.5, weight_decay=0.1, trust_coefficient=0.1).step()
    return {n: p.detach() for n, p in model.named_parameters()}


def cases():
    yield from ((name, q, None, {}) for name in HEADS for q in WIDTHS)
    yield from (('L3', 22, target, {}) for target in TARGETS[1:])
    yield from (('variance', 22, target, {}) for target in TARGETS[1:])
    yield 'L3', 22, None, dict(last_norm='BN')
    yield 'variance', 22, None, dict(dims=(), last_bias=False)  # the layer stands on the backbone
    yield 'L2', 22, None, dict(dims=(9, 14), norm='LN')
    for name, dims in dict(
        L3=(9, 14), variance=(16,), correlation=(9, 16), sum=(14,)
    ).items():  # 14 is no multiple of 4
        yield name, 22, None, dict(dims=dims, layers=2)
    yield 'L2', 24, dict(type='MomentumTarget'), dict(dims=(9, 14), layers=2, last_norm='BN', bias=False)


def on_rank(rank, world_size):
    found = []
    for name, q, target, neck in cases():
        model = build(HEADS[name], q, True, target, **neck)
        net = DistributedDataParallel(model, broadcast_buffers=False, find_unused_parameters=True)
        loss, losses = loss_of(net, [view.chunk(world_size)[rank] for view in images(LOCAL * world_size)])
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        values = {n: v.detach() for n, v in losses.items()}
        buffers, norm = dict(model.named_buffers()), whole_norm([p for p in model.parameters() if p.grad is not None])
        stepped = after_a_step(model)
        found.append(
            dict(loss=loss.detach(), values=values, gradients=gradients, buffers=buffers, norm=norm, stepped=stepped)
        )
    return found


@pytest.fixture(scope='module')
def on_ranks():
    made = {}

    def ranks(world_size):
        if world_size not in made:
            made[world_size] = run_processes(on_rank, world_size)
        return made[world_size]

    return ranks


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    'case', range(len(list(cases()))), ids=lambda i: '-'.join(map(str, list(cases())[i][:2])) + f'-{i}'
)
def test_value_and_gradients_are_those_of_one_process(on_ranks, world_size, case):
    name, q, target, neck = list(cases())[case]
    model = build(HEADS[name], q, False, target, **neck)
    loss, losses = loss_of(model, images(LOCAL * world_size))
    loss.backward()
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    norm, stepped = torch.stack([g.norm() for g in expected.values()]).norm(), after_a_step(model)
    whole = dict(shards_of(build(HEADS[name], q, True, target, **neck)))
    for rank, result in enumerate(found[case] for found in on_ranks(world_size)):
        named = (*model.named_parameters(), *model.named_buffers())
        share = {n: share_of(whole[n], rank, world_size) if n in whole else ... for n, _ in named}
        torch.testing.assert_close(result['loss'], loss.detach(), rtol=1e-12, atol=1e-13)
        for word, value in losses.items():
            torch.testing.assert_close(result['values'][word], value.detach(), rtol=1e-11, atol=1e-12)
        assert set(expected) == set(result['gradients'])
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for n, gradient in expected.items():
            torch.testing.assert_close(result['gradients'][n], gradient[share[n]], rtol=1e-12, atol=1e-12 * largest)
        torch.testing.assert_close(result['norm'], norm, rtol=1e-12, atol=0)
        for n, p in stepped.items():
            torch.testing.assert_close(result['stepped'][n], p[share[n]], rtol=1e-11, atol=1e-12)
        for n, buffer in model.named_buffers():
            torch.testing.assert_close(result['buffers'][n], buffer[share[n]], rtol=1e-12, atol=1e-13)


REFUSED = [
    (
        dict(head=dict(type='InfoNCEHead')),
        'InfoNCEHead as configured .* CrossCorrelationHead, KernelMMDHead, VarianceCov',
    ),
    (dict(head=dict(HEADS['L3'], layout='rows')), "KernelMMDHead as configured .* layout='auto'"),
    (dict(head=dict(type='SumHead', heads=dict(a=HEADS['L3'], b=dict(type='InfoNCEHead')))), 'SumHead as configured'),
    (dict(predictor=dict(type='MLPNeck', dims=(8, 22))), 'A predictor takes whole rows'),
    (dict(batching='all'), "neck_batching='view', not 'all'"),
    (dict(target=dict(type='MomentumTarget', sub_batches=2)), 'sub_batches reorder whole rows'),
    (dict(neck=dict(type='MLPNeck', dims=(8, 22), sharded=True, last_norm='LN')), "last_norm='LN' mixes features"),
    (dict(neck=dict(type='MLPNeck', dims=(8, 22), sharded=2, norm='LN')), " norm='LN' mixes features"),
    (dict(neck=dict(type='MLPNeck', dims=(22,), sharded=2)), r'2 \(the last two\), and there are 1 layers'),
    (dict(neck=dict(type='MLPNeck', dims=(8, 8, 22), sharded=3)), 'sharded is False, True .* got 3'),
]


@pytest.mark.parametrize('asked, message', REFUSED, ids=lambda x: '' if isinstance(x, dict) else x[:24])
def test_what_asks_for_rows_is_refused_when_the_model_is_built(asked, message):
    parts = dict(neck=dict(type='MLPNeck', dims=(8, 22), sharded=True), head=HEADS['L3'])
    with pytest.raises(ValueError, match=message):
        JointEmbedding(Flat(), **{**parts, **asked})


def test_shards_begin_as_parts_of_what_one_process_draws(monkeypatch):
    monkeypatch.setattr(necks, '_BLOCK', 60)  # blocks of 4 rows
    torch.manual_seed(3)
    whole = nn.Linear(14, 22)
    after = torch.rand(())
    for rank in range(3):
        monkeypatch.setattr('mmkernel.distributed.shards.world_size', lambda: 3)
        monkeypatch.setattr('mmkernel.distributed.shards.rank', lambda rank=rank: rank)
        torch.manual_seed(3)
        own = necks.ShardedLinear(14, 22)
        assert torch.equal(own.weight, whole.weight[8 * rank : 8 * rank + 8])
        assert torch.equal(own.bias, whole.bias[8 * rank : 8 * rank + 8])
        assert torch.rand(()) == after  # the parts built after it draw the same numbers
        assert isinstance(copy.deepcopy(own).weight, Shard)


@pytest.mark.parametrize('q', [3, 9])  # of 9, three ranks would have 3 each and the fourth none
def test_fewer_features_than_ranks_are_refused(q):
    with pytest.raises(ValueError, match=f'{q} features are too few to lie on 4 ranks'):
        share_of(q, 0, 4)


def norm_with_a_bad_shard(rank, world_size):
    own = Shard(torch.ones(2, 3))
    own.grad = torch.full((2, 3), torch.nan if rank == 1 else 1.0)
    return whole_norm([own])


def test_a_gradient_that_is_not_finite_in_one_shard_is_seen_by_every_process():
    assert all(norm.isnan() for norm in run_processes(norm_with_a_bad_shard, 2))


def features(rank, world_size):
    model = build(HEADS['L3'], 22, True)
    h = model.extract(images(2)[0])
    try:
        model.extract(images(2)[0], stage='neck')
    except ValueError as error:
        return h, str(error)


def test_features_come_from_the_backbone():
    model = build(HEADS['L3'], 22, True)
    for h, refused in run_processes(features, 2):
        torch.testing.assert_close(h, model.extract(images(2)[0]))
        assert 'The neck is sharded over ranks' in refused
    assert model.extract(images(2)[0], stage='neck').shape == (2, 22)  # one process has all columns


def test_norms_of_all_rows_stay_what_they_are_when_others_are_synchronised(monkeypatch):
    for module in ('mmkernel.distributed.shards', 'mmkernel.models.necks'):
        monkeypatch.setattr(f'{module}.world_size', lambda: 2)
    model = build(HEADS['L3'], 22, True, dims=(9, 14), last_norm='BN')
    kept = model.neck.norms_of_all_rows()
    assert [type(model.neck[int(name)]) for name in kept] == [nn.BatchNorm1d, nn.ReLU, nn.BatchNorm1d]
    assert len(kept) == len(model.neck) - 5  # two layers with a norm and a ReLU between them, and the last layer
    assert '1' not in kept


def test_another_wrapper_than_ours_is_refused():
    model = build(HEADS['L3'], 22, True)
    with pytest.raises(ValueError, match="'MMFullyShardedDataParallel' does not know of a sharded neck"):
        wrap_model(model, dict(model_wrapper_cfg=dict(type='MMFullyShardedDataParallel')), distributed=True)
