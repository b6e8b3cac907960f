"""InfoNCEHead, its queue and CosinePredictionHead against the authors' own code."""

import math

import numpy as np
import pytest
import torch

from mmkernel.losses import nt_xent
from mmkernel.models import Embeddings
from mmkernel.registry import MODELS

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}
every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)


def rows(array, dtype=torch.float64, device='cpu'):
    return torch.from_numpy(array).to(device, dtype).requires_grad_()


def check(parts, g, dtype, inputs, offset=0.0):
    total = sum(value for name, value in parts.items() if name.startswith('loss_'))
    total.backward()
    assert total.item() + offset == pytest.approx(float(g['out_loss']), rel=DTYPES[dtype])
    for name, z in inputs.items():
        expected = g[f'grad_{name}']
        ours = np.zeros_like(expected) if z.grad is None else z.grad.cpu().numpy()
        assert np.abs(ours - expected).max() <= 10 * DTYPES[dtype] * max(np.abs(expected).max(), 1e-12), name


def predictions(p, t):
    """p_1 -> t_2 and p_2 -> t_1, targets as constants."""
    plain = Embeddings.from_views(*p)
    return Embeddings(
        plain.online, plain.online, torch.stack(t).detach(), plain.pairs, plain.sample_index, (0, 1), (0, 1)
    )


@every_dtype
@pytest.mark.parametrize(
    'case, key', [('ntxent_T0.5', 'T'), ('sfrikrepo_simclr_T0.15', 'simclr_temp'), ('htdt_contrastive_tau0.5', 'tau')]
)
def test_other_rows_of_the_batch_as_negatives(golden, case, key, dtype, device):
    g = golden(case)
    x, y = rows(g['in_x'], dtype, device), rows(g['in_y'], dtype, device)
    head = MODELS.build(dict(type='InfoNCEHead', temperature=float(g[f'hp_{key}'])))
    check(head.loss(Embeddings.from_views(x, y)), g, dtype, dict(x=x, y=y))


@every_dtype
def test_a_queue_as_negatives(golden, dtype, device):
    g = golden('moco_T0.07')
    queue = dict(type='FeatureQueue', length=int(g['hp_K']))
    head = MODELS.build(
        dict(type='InfoNCEHead', temperature=float(g['hp_T']), negatives='queue', queue=queue, in_dim=int(g['hp_dim']))
    ).to(device, dtype)
    head.queue.rows.copy_(torch.from_numpy(g['in_queue'].T)[None])
    head.queue.pointer.fill_(int(g['in_queue_ptr']))
    q, k = rows(g['in_q'], dtype, device), rows(g['in_k'], dtype, device)
    embeddings = Embeddings(q[None], q[None], k[None].detach(), [(0, 0)], torch.arange(16, device=device), (0,), (1,))
    parts = head.loss(embeddings)
    before = head.queue.rows.clone()
    again = head.loss(embeddings)
    assert torch.equal(again['contrastive'], parts['contrastive'])
    assert torch.equal(head.queue.rows, before)  # loss is pure
    head.commit()  # before backward: the graph keeps the rows it was made with
    check(parts, g, dtype, dict(q=q, k=k))
    assert np.abs(head.queue.rows[0].T.cpu().numpy() - g['out_queue']).max() <= DTYPES[dtype]
    assert int(head.queue.pointer) == int(g['out_queue_ptr'][0])


@every_dtype
@pytest.mark.parametrize('case, names', [('byol_n16_q32', 'p1 p2 z1 z2'), ('htdt_byol', 'p0 p1 t0 t1')])
def test_cosine_prediction_summed_over_directions(golden, case, names, dtype, device):
    g = golden(case)
    inputs = {name: rows(g[f'in_{name}'], dtype, device) for name in names.split()}
    p1, p2, t1, t2 = inputs.values()
    parts = MODELS.build(dict(type='CosinePredictionHead', weight=2.0)).loss(predictions((p1, p2), (t1, t2)))
    check(parts, g, dtype, inputs)


@every_dtype
def test_cosine_prediction_as_minus_the_mean_cosine(golden, dtype, device):
    g = golden('simsiam_loss_n16_q32')
    inputs = {name: rows(g[f'in_{name}'], dtype, device) for name in ('p1', 'p2', 'z1', 'z2')}
    p1, p2, z1, z2 = inputs.values()
    parts = MODELS.build(dict(type='CosinePredictionHead', weight=0.5)).loss(predictions((p1, p2), (z1, z2)))
    assert -parts['cosine'].item() == pytest.approx(float(g['out_loss']), rel=DTYPES[dtype])
    check(parts, g, dtype, inputs, offset=-1.0)


def cloud(views=2, batch=8, q=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, q, dtype=torch.float64, generator=g) for _ in range(views)]


def test_in_batch_keys_against_the_written_out_formula():
    p, t = cloud(), cloud(seed=1)
    T = 0.3
    parts = MODELS.build(dict(type='InfoNCEHead', negatives='targets', temperature=T, weight=4 * T)).loss(
        predictions(p, t)
    )
    expected = 0.0
    for i, j in ((0, 1), (1, 0)):
        unit = torch.nn.functional.normalize
        similarity = unit(p[i], dim=1) @ unit(t[j], dim=1).T / T
        expected += 2 * T * torch.nn.functional.cross_entropy(similarity, torch.arange(8))
    assert parts['loss_contrastive'].item() == pytest.approx(expected.item(), rel=1e-12)


def test_many_views_against_the_written_out_formula():
    z = [torch.nn.functional.normalize(x, dim=1) for x in cloud(views=4, batch=5)]
    flat, T, losses = torch.cat(z), 0.5, []
    for i in range(4):
        for n in range(5):
            row = flat @ z[i][n] / T
            row[i * 5 + n] = -math.inf
            losses += [row.logsumexp(0) - row[j * 5 + n] for j in range(4) if j != i]
    assert nt_xent(torch.stack(z), T).item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-12)


def queue_head(**options):
    queue = dict(type='FeatureQueue', **{'length': 16, 'views': 2, **options})
    return MODELS.build(dict(type='InfoNCEHead', negatives='queue', queue=queue, in_dim=6))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(views=1), 'rows of 1 target view.s., the batch has 2'),
        (dict(dim=5), 'rows of width 5, the neck gives 6'),
    ],
)
def test_a_queue_that_does_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        queue_head(**options).loss(Embeddings.from_views(*cloud()))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(negatives='rows'), 'negatives is one of'),
        (dict(negatives='queue'), "a queue goes with negatives='queue'"),
        (dict(queue=dict(type='FeatureQueue', length=4)), "a queue goes with negatives='queue'"),
        (dict(temperature=0.0), 'temperature=.*; expected'),
    ],
)
def test_settings_that_contradict(options, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(dict(type='InfoNCEHead', **options))


@pytest.mark.parametrize('negatives', ['views', 'targets'])
def test_batches_without_negatives(negatives):
    head = MODELS.build(dict(type='InfoNCEHead', negatives=negatives))
    with pytest.raises(ValueError, match='at least 2'):
        head.loss(Embeddings.from_views(*cloud(batch=1)))


@pytest.mark.parametrize(
    'head', [dict(type='CosinePredictionHead'), dict(type='InfoNCEHead'), dict(type='InfoNCEHead', negatives='targets')]
)
def test_one_view_has_no_pair(head):
    with pytest.raises(ValueError, match='No pair of views'):
        MODELS.build(head).loss(Embeddings.from_views(*cloud(views=1)))


def test_online_rows_as_negatives_need_the_target_views_among_them():
    x, y = (z[None] for z in cloud())
    embeddings = Embeddings(x, x, y, [(0, 0)], torch.arange(8), (0,), (1,))
    with pytest.raises(ValueError, match=r'target views \[1\] are not among the online'):
        MODELS.build(dict(type='InfoNCEHead')).loss(embeddings)
