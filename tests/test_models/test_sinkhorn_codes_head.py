"""SinkhornCodesHead against the authors' own code; prototypes and queue."""

import numpy as np
import pytest
import torch

from mmkernel.losses.alignment import pairs_of_views
from mmkernel.models import Embeddings
from mmkernel.registry import MODELS

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}


def head(**options):
    torch.manual_seed(0)
    return MODELS.build(dict(type='SinkhornCodesHead', **{'num_prototypes': 12, 'in_dim': 6, **options})).double()


def cloud(views=2, batch=8, q=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Embeddings.from_views(*(torch.randn(batch, q, dtype=torch.float64, generator=g) for _ in range(views)))


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
def test_golden_swapped_prediction(golden, dtype, device):
    g = golden('swav_loss_noqueue')
    bs, K = int(g['hp_bs']), int(g['hp_K'])
    flat = torch.from_numpy(g['in_embedding']).to(device, dtype).requires_grad_()
    online = flat.view(-1, bs, flat.shape[1])
    views, assign = tuple(range(len(online))), tuple(g['hp_crops_for_assign'].tolist())
    module = head(
        num_prototypes=K, in_dim=flat.shape[1], temperature=float(g['hp_temperature']),
        epsilon=float(g['hp_epsilon']), iterations=int(g['hp_sinkhorn_iterations']),
    ).to(device, dtype)  # fmt: skip
    module.prototypes.weight.data.copy_(torch.from_numpy(g['in_prototypes']))
    pairs = pairs_of_views(views, assign)
    embeddings = Embeddings(online, online, online[list(assign)], pairs, torch.arange(bs, device=device), views, assign)
    parts = module.loss(embeddings)
    parts['loss_codes'].backward()
    tolerance = DTYPES[dtype]
    assert parts['loss_codes'].item() == pytest.approx(float(g['out_loss']), rel=tolerance)
    codes = module.codes(online[list(assign)].detach(), module.prototypes.weight.detach())
    assert np.abs(codes.cpu().numpy() - g['out_codes']).max() <= 10 * tolerance * g['out_codes'].max()
    # The authors feed unit rows and do not normalise again: their gradient, made tangent to the sphere, is ours.
    for ours, name, points in (
        (flat.grad, 'embedding', flat.detach()),
        (module.prototypes.weight.grad, 'prototypes', None),
    ):
        theirs = torch.from_numpy(g[f'grad_{name}']).to(device, dtype)
        if points is not None:
            theirs = theirs - (theirs * points).sum(1, keepdim=True) * points
        assert (ours - theirs).abs().max() <= 10 * tolerance * theirs.abs().max(), name


def test_prototypes_are_unit_vectors_from_the_start_and_after_each_step():
    module = head()
    ones = torch.ones(12, dtype=torch.float64)
    torch.testing.assert_close(module.prototypes.weight.norm(dim=1), ones, rtol=1e-6, atol=0)
    before = module.loss(cloud())['loss_codes']
    module.prototypes.weight.data.mul_(3)
    torch.testing.assert_close(module.loss(cloud())['loss_codes'], before)  # normalised before use
    module.commit()
    torch.testing.assert_close(module.prototypes.weight.norm(dim=1), ones)


def test_the_queue_waits_until_it_is_enabled_and_full():
    module, without = head(queue_length=16), head()
    module.commit()
    without.commit()
    values, plain = [], []
    for step in range(5):
        if step == 1:
            module.queue.enable()
        values.append(module.loss(cloud(seed=step))['codes'].item())
        plain.append(without.loss(cloud(seed=step))['codes'].item())
        module.commit()
    assert values[:3] == plain[:3]  # off, empty, half full
    assert all(a != b for a, b in zip(values[3:], plain[3:], strict=True))
    stored = torch.nn.functional.normalize(cloud(seed=4).target, dim=-1)
    torch.testing.assert_close(module.queue.rows[:, 8:], stored)  # the fourth stored batch
    assert {'queue.rows', 'queue.pointer', 'queue.stored', 'queue.enabled'} <= module.state_dict().keys()


def test_the_queue_rows_join_the_assignment():
    from mmkernel.losses import sinkhorn

    module = head(queue_length=8)
    module.queue.enable()
    module.loss(cloud(seed=1))
    module.commit()
    module.commit()
    weight, target = module.prototypes.weight.detach(), torch.nn.functional.normalize(cloud().target, dim=-1)
    ours = module.codes(target, weight)
    for g in range(2):
        together = torch.cat([module.queue.rows[g], target[g]]) @ weight.T
        torch.testing.assert_close(ours[g], sinkhorn(together)[8:])


def test_more_prototypes_than_rows():
    with pytest.warns(UserWarning, match='12 prototypes for 8 rows of a batch and 0 of the queue'):
        head().check_batch(8)
    head(queue_length=8).check_batch(8)
    with pytest.raises(ValueError, match='length 20 is not a multiple of the global batch of 8'):
        head(queue_length=20).queue.check_batch(8)


def test_a_queue_for_another_number_of_views():
    module = head(queue_length=8, queue_views=2)
    module.queue.enable()
    with pytest.raises(ValueError, match=r'rows of 2 target view\(s\), the batch has 3'):
        module.loss(cloud(views=3))


@pytest.mark.parametrize('options', [dict(num_prototypes=1), dict(temperature=0.0), dict(in_dim=None)])
def test_settings_without_meaning(options):
    with pytest.raises(ValueError, match='SinkhornCodesHead'):
        head(**options)
