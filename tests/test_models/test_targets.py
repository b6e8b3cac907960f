"""What predictions must match: constants, and an encoder that follows."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from multiprocess import run_processes

from mmkernel.engine import load_weights
from mmkernel.registry import MODELS

PARTS = dict(
    backbone=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, in_channels=1, layers=(1, 1, 1, 1),
                  channels=(4, 4, 8, 8)),
    neck=dict(type='MLPNeck', dims=(8, 6)),
    predictor=dict(type='MLPNeck', dims=(8, 6)),
    head=dict(type='CosinePredictionHead'),
)  # fmt: skip


def model(target='MomentumTarget', seed=0, **options):
    torch.manual_seed(seed)
    built = MODELS.build(dict(type='JointEmbedding', **PARTS, target=dict(type=target, **options)))
    built.init_weights()
    return built


def images(batch=8, views=2):
    return [torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(v)) for v in range(views)]


def pairs(m):
    """(target parameter, online parameter)"""
    return list(zip(*m.target._parameters_of_both(), strict=True))


def equal(m):
    return all(torch.equal(a, b) for a, b in pairs(m))


def change_online(m, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in [*m.backbone.parameters(), *m.neck.parameters()]:
            p.add_(torch.randn(p.shape, generator=generator))


def test_update_is_the_moving_average_of_parameters_only():
    m = model()
    change_online(m)
    m.backbone.bn1.running_mean.fill_(7.0)
    before = [a.clone() for a, _ in pairs(m)]
    m.target.update(0.9)
    for old, (a, b) in zip(before, pairs(m), strict=True):
        torch.testing.assert_close(a, 0.9 * old + 0.1 * b)
    assert float(m.target.backbone.bn1.running_mean.abs().max()) == 0.0
    m.target.update(0.0)
    for a, b in pairs(m):
        torch.testing.assert_close(a, b)


def test_it_has_no_gradient_and_its_own_batch_statistics():
    m = model()
    parts = m(images(), mode='loss')
    parts['loss_prediction'].backward()
    assert all(p.grad is None and not p.requires_grad for p in m.target.parameters())
    assert not torch.equal(m.target.backbone.bn1.running_mean, torch.zeros(4))
    embeddings = m(images(), mode='tensor')
    torch.testing.assert_close(embeddings.target, embeddings.online)  # same weights, same batch statistics
    assert not embeddings.target.requires_grad


@pytest.mark.parametrize('paramwise', [None, dict(norm_decay_mult=0.0)])
def test_no_optimizer_ever_moves_it(paramwise):
    m = model()
    settings = dict(type='LARS', lr=0.5, weight_decay=0.5)
    with DefaultScope.overwrite_default_scope('mmkernel'):
        wrapper = build_optim_wrapper(m, dict(type='PretrainOptimWrapper', optimizer=settings, paramwise_cfg=paramwise))
    before = copy.deepcopy(m.target.state_dict())
    wrapper.update_params(m(images(), mode='loss')['loss_prediction'])
    after = m.target.state_dict()
    assert all(
        torch.equal(before[name], after[name]) for name in before if 'running' not in name and 'num_b' not in name
    )
    assert not equal(m)


def test_a_whole_checkpoint_restores_it_and_others_start_it_again():
    trained = model()
    change_online(trained)
    state = copy.deepcopy(trained.state_dict())
    again = model(seed=3)
    again.load_state_dict(state)
    assert not equal(again)
    assert all(torch.equal(state[name], value) for name, value in again.state_dict().items())

    without = {name: value for name, value in state.items() if not name.startswith('target.')}
    again.load_state_dict(without)  # strict: nothing is missing
    assert equal(again)
    started = model(seed=6)
    assert load_weights(started, without).exact  # the engine's door, strict too
    assert equal(started)
    report = load_weights(model(seed=4), {k: v for k, v in state.items() if k.startswith('backbone.')}, strict=False)
    assert len(report.missing) > 0

    pretrained = model(seed=5)
    pretrained.backbone.load_state_dict(trained.backbone.state_dict())
    assert equal(pretrained)
    torch.testing.assert_close(pretrained.backbone.conv1.weight, trained.backbone.conv1.weight)
    with pytest.raises(RuntimeError, match='Missing key'):
        again.load_state_dict({name: value for name, value in state.items() if name != 'target.backbone.conv1.weight'})


def test_a_copied_model_follows_its_own_encoder():
    m = model()
    copied = copy.deepcopy(m)
    change_online(copied)
    copied.target.update(0.0)
    assert equal(copied)
    assert equal(m)
    copied.backbone.load_state_dict(m.backbone.state_dict())
    assert torch.equal(copied.target.backbone.conv1.weight, m.backbone.conv1.weight)


def test_stopping_the_gradient_equals_a_momentum_target_at_the_first_step():
    values, gradients = [], []
    for target in ('StopGradientTarget', 'MomentumTarget'):
        m = model(target)
        loss = m(images(), mode='loss')['loss_prediction']
        loss.backward()
        values.append(loss.item())
        gradients.append({name: p.grad for name, p in m.named_parameters() if p.requires_grad})
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name])


def test_targets_outside_the_online_views_need_a_momentum_target():
    torch.manual_seed(0)
    views = dict(online_views=(0,), target_views=(1,))
    m = MODELS.build(dict(type='JointEmbedding', **PARTS, target=dict(type='MomentumTarget'), **views))
    assert m(images(), mode='tensor').target.shape == (1, 8, 6)
    m = MODELS.build(dict(type='JointEmbedding', **PARTS, target=dict(type='StopGradientTarget'), **views))
    with pytest.raises(ValueError, match='StopGradientTarget takes its rows from the online views'):
        m(images(), mode='tensor')


@pytest.mark.parametrize('parts', [1, 4])
def test_shuffling_and_sub_batches_keep_the_order_of_rows(parts):
    plain, shuffled = model(), model(shuffle_bn=True, sub_batches=parts)
    plain.eval()
    shuffled.eval()  # without batch statistics the order of rows cannot matter
    torch.testing.assert_close(shuffled.target(images()), plain.target(images()))
    shuffled.train()
    first, second = shuffled.target(images()), shuffled.target(images())
    assert torch.allclose(first, second, atol=1e-5) == (parts == 1)  # the sub-batches change from pass to pass
    assert int(shuffled.target.passes) == 2
    assert 'target.passes' in shuffled.state_dict()


def test_a_sub_batch_is_encoded_with_its_own_statistics():
    m = model(sub_batches=2)
    first, second = (m.target.neck(m.target.backbone(images()[0][part])) for part in (slice(0, 4), slice(4, 8)))
    torch.testing.assert_close(m.target(images())[0], torch.cat([first, second]))
    with pytest.raises(ValueError, match='sub_batches = 3 does not divide the local batch of 8'):
        model(sub_batches=3).target(images())
    with pytest.raises(ValueError, match='sub_batches=0; expected'):
        model(sub_batches=0)


def shuffled_on_rank(rank, world_size):
    m = model(shuffle_bn=True)
    own = [view.chunk(world_size)[rank] for view in images()]
    trained = m.target(own)
    m.eval()
    return dict(trained=trained, frozen=m.target(own), passes=m.target.passes)


@pytest.mark.parametrize('world_size', [2])
def test_shuffling_over_ranks_equals_sub_batches_of_one_process(world_size):
    ranks = run_processes(shuffled_on_rank, world_size)
    single = model(shuffle_bn=True, sub_batches=world_size)
    expected = single.target(images())
    torch.testing.assert_close(torch.cat([r['trained'] for r in ranks], dim=1), expected, rtol=1e-4, atol=1e-5)
    assert all(int(r['passes']) == 1 for r in ranks)
