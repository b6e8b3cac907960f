"""WhiteningHead against the authors' own code, its blocks across processes, and its state."""

import warnings

import numpy as np
import pytest
import torch
from launches import Launches
from multiprocess import run_processes

from mmkernel.losses.matrices import SingularCovarianceWarning
from mmkernel.losses.whitening import METHODS, sub_batches, whiten_views
from mmkernel.models import Embeddings, WhiteningHead


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 2e-5)], ids=str)
@pytest.mark.parametrize('case', ['wmse_full_eps0', 'wmse_sub32_eps0'])
def test_golden(golden, case, dtype, tolerance, device, monkeypatch):
    g = golden(case)
    x = [torch.from_numpy(g[f'in_x{v}']).to(device, dtype).requires_grad_() for v in range(2)]
    head = WhiteningHead(sub_batch_size=int(g['hp_w_size']), shrinkage=float(g['hp_eps']))
    monkeypatch.setattr(head, 'permutation', lambda rows: torch.from_numpy(g['in_perm']))
    loss = head.loss(Embeddings.from_views(*x))['loss_invariance']
    loss.backward()
    assert loss.item() == pytest.approx(float(g['out_loss']), rel=tolerance)
    for v in range(2):
        expected = g[f'grad_x{v}']
        assert np.abs(x[v].grad.cpu().numpy() - expected).max() <= 10 * tolerance * np.abs(expected).max()


def test_one_block_of_all_rows_is_the_global_form(golden):
    g = golden('wmse_full_eps0')
    embeddings = Embeddings.from_views(*(torch.from_numpy(g[f'in_x{v}']) for v in range(2)))
    assert WhiteningHead().loss(embeddings)['invariance'].item() == pytest.approx(float(g['out_loss']), rel=1e-9)


def cloud(views=3, batch=24, q=4):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(batch, q, dtype=torch.float64, generator=generator) for _ in range(views)]


@pytest.mark.parametrize('method', METHODS)
def test_every_method_has_finite_gradients(method):
    z = [v.requires_grad_() for v in cloud()]
    parts = WhiteningHead(method=method, sub_batch_size=12, iterations=2).loss(Embeddings.from_views(*z))
    parts['loss_invariance'].backward()
    assert all(torch.isfinite(v.grad).all() for v in z)
    assert parts['jitter'] == 0
    assert parts['condition'] > 1


def test_distances():
    """Whitened rows have mean square 1 - 1/n, so both distances are known from the cross-covariance."""
    embeddings = Embeddings.from_views(*cloud(views=2))
    element = WhiteningHead(distance='squared', reduction='element').loss(embeddings)['invariance']
    sample = WhiteningHead(distance='squared', reduction='sample').loss(embeddings)['invariance']
    torch.testing.assert_close(4 * element, sample)
    x, y = whiten_views(embeddings.online[None, :, None]).rows[0, :, 0]
    torch.testing.assert_close(element, 2 * 23 / 24 - 2 * (x * y).mean())


def test_zca_does_not_care_how_the_space_is_rotated_but_cholesky_does():
    z = cloud(views=2)
    R = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    for method, invariant in (('zca', True), ('cholesky', False)):
        plain, rotated = (
            WhiteningHead(method=method).loss(Embeddings.from_views(*views))['invariance']
            for views in (z, [v @ R for v in z])
        )
        assert torch.allclose(plain, rotated, rtol=1e-9) == invariant


def test_permutations_follow_the_committed_steps():
    head, embeddings = WhiteningHead(sub_batch_size=8, iterations=2), Embeddings.from_views(*cloud())
    state = torch.random.get_rng_state()
    first = head.loss(embeddings)
    torch.testing.assert_close(head.loss(embeddings), first, rtol=0, atol=0)
    assert head.steps == 0
    assert torch.equal(torch.random.get_rng_state(), state)
    head.commit()
    assert head.loss(embeddings)['invariance'] != first['invariance']
    resumed = WhiteningHead(sub_batch_size=8, iterations=2)
    resumed.load_state_dict(head.state_dict())
    torch.testing.assert_close(resumed.loss(embeddings), head.loss(embeddings), rtol=0, atol=0)


def test_permutations_follow_the_seed_and_the_steps():
    def drawn(seed, steps):
        head = WhiteningHead(sub_batch_size=8, seed=seed)
        head.steps = steps
        return tuple(head.permutation(64).flatten().tolist())

    several = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2**20), (2**32 - 1, 0)]
    assert len({drawn(*numbers) for numbers in several}) == len(several)
    assert drawn(3, 7) == drawn(3, 7)
    with pytest.raises(ValueError, match=r'WhiteningHead.seed=-1; expected'):
        WhiteningHead(seed=-1)


def test_singular_covariances_are_reported_by_commit():
    z = [v.float() for v in cloud()]
    for view in z:
        view[:, 3] = view[:, 2]
    head = WhiteningHead()
    parts = head.loss(Embeddings.from_views(*z))
    assert parts['jitter'] > 0
    assert parts['condition'] > 1e4
    with warnings.catch_warnings():  # not at every step, and only once the value has come to the host by itself
        warnings.simplefilter('error')
        for _ in range(50):
            head.loss(Embeddings.from_views(*z))
            head.commit()
    with pytest.warns(
        SingularCovarianceWarning, match='4 dimensions are singular in torch.float32.*collapsed dimensions'
    ):
        head.commit()


@pytest.mark.parametrize('sub_batch_size', [None, 12])
def test_no_step_waits_for_the_device(sub_batch_size):
    head = WhiteningHead(sub_batch_size=sub_batch_size)
    for _ in range(2):
        z = [v.requires_grad_() for v in cloud()]
        with Launches() as launches:
            head.loss(Embeddings.from_views(*z))['loss_invariance'].backward()
            head.commit()
    assert launches.host_reads == 0


@pytest.mark.parametrize('point', [0.0, 0.1])
@pytest.mark.parametrize('options', [dict(), dict(distance='squared'), dict(distance='squared', reduction='sample')])
@pytest.mark.parametrize('method', ['cholesky', 'zca'])
def test_a_point_costs_as_much_as_views_without_anything_in_common(method, options, point):
    head = WhiteningHead(method=method, **options)
    z = [torch.full((24, 4), point).requires_grad_() for _ in range(2)]
    loss = head(*z)
    loss.backward()
    q = 4 if options.get('reduction') == 'sample' else 1
    assert loss.item() == pytest.approx(2 * q)
    assert not z[0].grad.any()
    good = torch.randn(24, 4)
    assert head(good, good + 0.1 * torch.randn(24, 4)) < loss


def nan_on_one_rank(rank: int, world_size: int) -> list[float]:
    losses = []
    for head in (WhiteningHead(sub_batch_size=12), WhiteningHead(), WhiteningHead(method='pca', sub_batch_size=12)):
        for bad in (torch.nan, torch.inf):
            z = [v.chunk(world_size)[rank].clone() for v in cloud(batch=48)]
            if rank == 0:
                z[0][5] = bad
            losses.append(float(head(*z)))
    return losses


def test_nan_rows_of_one_rank_are_a_nan_loss_on_every_rank():
    for losses in run_processes(nan_on_one_rank, 2):
        assert all(loss != loss for loss in losses), losses


def on_rank(rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Value, own permutation and own gradient of a head with sub-batches on this rank's rows."""
    z = [v.chunk(world_size)[rank].clone().requires_grad_() for v in cloud(batch=48)]
    head = WhiteningHead(sub_batch_size=8)
    loss = head.loss(Embeddings.from_views(*z))['loss_invariance']
    loss.backward()
    return dict(
        loss=loss.detach(), permutation=head.permutation(z[0].shape[0]), gradient=torch.stack([v.grad for v in z])
    )


def test_sub_batches_are_per_process():
    """Value: the mean over ranks of losses of their own blocks, on every rank; gradient: that of the rank's own loss."""
    world_size = 2
    outcomes = run_processes(on_rank, world_size)
    own = []
    for rank, outcome in enumerate(outcomes):
        z = torch.stack([v.chunk(world_size)[rank] for v in cloud(batch=48)]).requires_grad_()
        rows = whiten_views(sub_batches(z, outcome['permutation'])).rows
        pairs = ((0, 1), (0, 2), (1, 2))
        cosines = [torch.cosine_similarity(rows[:, i], rows[:, j], dim=-1).mean() for i, j in pairs]
        loss = 2 - 2 * torch.stack(cosines).mean()
        loss.backward()
        torch.testing.assert_close(outcome['gradient'], z.grad)
        own.append(loss.detach())
    for outcome in outcomes:
        torch.testing.assert_close(outcome['loss'], torch.stack(own).mean())
    assert not torch.equal(outcomes[0]['permutation'], outcomes[1]['permutation'])


def test_too_few_rows():
    head = WhiteningHead(sub_batch_size=4)
    with pytest.raises(ValueError, match='Whitening 4 dimensions needs more samples than that, got 4'):
        head.loss(Embeddings.from_views(*cloud()))
    with pytest.raises(ValueError, match='24 images per process cannot be cut'):
        WhiteningHead(sub_batch_size=9).loss(Embeddings.from_views(*cloud()))
    with pytest.raises(ValueError, match='No pair of views'):
        WhiteningHead().loss(Embeddings.from_views(*cloud(views=1)))


@pytest.mark.parametrize(
    'option',
    [dict(method='qr'), dict(distance='l2'), dict(reduction='mean'), dict(statistics='all'), dict(iterations=2)],
)
def test_bad_options(option):
    with pytest.raises(ValueError, match=f'WhiteningHead.{next(iter(option))}'):
        WhiteningHead(**option)
