"""VarianceCovarianceHead and CrossCorrelationHead against the authors' own code, and their identities."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmkernel.kernels import LegendreKernel, mmd2_to_uniform
from mmkernel.losses import moment_terms
from mmkernel.models import CrossCorrelationHead, Embeddings, VarianceCovarianceHead

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}
every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)


def check(head, g, dtype, device, components):
    inputs = {name: torch.from_numpy(g[f'in_{name}']).to(device, dtype).requires_grad_() for name in 'xy'}
    parts = head.loss(Embeddings.from_views(*inputs.values()))
    total = sum(value for name, value in parts.items() if name.startswith('loss_'))
    total.backward()
    tolerance = DTYPES[dtype]
    assert total.item() == pytest.approx(float(g['out_loss']), rel=tolerance)
    for ours, theirs in components.items():
        assert parts[ours].item() == pytest.approx(float(g[theirs]), rel=tolerance)
    for name, z in inputs.items():
        expected = g[f'grad_{name}']
        assert np.abs(z.grad.cpu().numpy() - expected).max() <= 10 * tolerance * np.abs(expected).max(), name


@every_dtype
@pytest.mark.parametrize('case, prefix', [('vicreg_25_25_1', 'hp_'), ('sfrikrepo_vicreg_25_25_1', 'hp_vicreg_')])
def test_variance_covariance(golden, case, prefix, dtype, device):
    g = golden(case)
    head = VarianceCovarianceHead(*(float(g[f'{prefix}{name}_coeff']) for name in ('sim', 'std', 'cov')))
    check(head, g, dtype, device, dict(invariance='out_inv', variance='out_std', covariance='out_cov'))


@every_dtype
def test_cross_correlation(golden, dtype, device):
    g = golden('barlow_lambd0.0051')
    head = CrossCorrelationHead(off_diagonal_weight=float(g['hp_lambd']), eps=float(g['hp_bn_eps']))
    check(head, g, dtype, device, dict(on_diagonal='out_on_diag'))


def test_defaults_are_the_published_values(golden):
    g = golden('vicreg_25_25_1')
    embeddings = Embeddings.from_views(*(torch.from_numpy(g[f'in_{name}']) for name in 'xy'))
    parts = VarianceCovarianceHead().loss(embeddings)
    total = sum(value for name, value in parts.items() if name.startswith('loss_'))
    assert total.item() == pytest.approx(float(g['out_loss']), rel=1e-9)
    assert CrossCorrelationHead().off_diagonal_weight == 0.0051


def cloud(views=2, batch=12, q=5):
    return [
        torch.randn(batch, q, dtype=torch.float64, generator=torch.Generator().manual_seed(v)).requires_grad_()
        for v in range(views)
    ]


def test_three_views():
    """Means over views and over unordered pairs; the covariance counts twice the mean, its sum where there are two."""
    z = cloud(views=3)
    parts = VarianceCovarianceHead().loss(Embeddings.from_views(*z))
    distances = [F.mse_loss(z[i], z[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(parts['invariance'], torch.stack(distances).mean())
    torch.testing.assert_close(parts['variance'], torch.stack([moment_terms(v[None], [])[1] for v in z]).mean())
    torch.testing.assert_close(parts['covariance'], 2 * torch.stack([moment_terms(v[None], [])[2] for v in z]).mean())


def test_reductions_differ_by_the_width():
    embeddings = Embeddings.from_views(*cloud())
    element = VarianceCovarianceHead(reduction='element').loss(embeddings)['invariance']
    torch.testing.assert_close(element * 5, VarianceCovarianceHead(reduction='sample').loss(embeddings)['invariance'])


def test_terms_without_weight_are_logged_but_not_trained():
    z = cloud()
    parts = VarianceCovarianceHead(1.0, 0.0, 0.0, reduction='sample').loss(Embeddings.from_views(*z))
    assert not parts['loss_variance'].requires_grad
    assert parts['loss_variance'] == 0
    assert parts['variance'] > 0
    assert parts['covariance'] > 0


def test_a_regulariser_alone_does_not_need_a_second_view():
    parts = VarianceCovarianceHead(invariance_weight=0.0).loss(Embeddings.from_views(cloud()[0]))
    assert parts['invariance'] == 0


def test_scale_of_the_correlation_head():
    embeddings = Embeddings.from_views(*cloud())
    one, tenth = (CrossCorrelationHead(scale=s).loss(embeddings) for s in (1.0, 0.1))
    for name in ('loss_on_diagonal', 'loss_off_diagonal'):
        torch.testing.assert_close(one[name] / 10, tenth[name])
    torch.testing.assert_close(one['on_diagonal'], tenth['on_diagonal'])


def test_correlation_is_symmetric_in_the_views():
    x, y = cloud()
    ours, swapped = (CrossCorrelationHead().loss(Embeddings.from_views(*views)) for views in ((x, y), (y, x)))
    torch.testing.assert_close(ours, swapped)


def test_second_order_kernel_is_a_moment_form():
    """On the sphere, b_1 P_1 + b_2 P_2 penalises the mean and the second moment as variance and covariance terms do:
    MMD^2 = b_1 ||mean z||^2 + b_2 q/(q-1) ||Z'Z/N - I/q||_F^2, diagonal (variance) and off-diagonal (covariance) apart."""
    b1, b2, q = 3.0, 7.0, 5
    z = F.normalize(cloud(batch=40)[0].detach(), dim=1)
    second = z.T @ z / len(z)
    variance = (second.diagonal() - 1 / q).square().sum()
    covariance_ = (second - second.diagonal().diag()).square().sum()
    expected = b1 * z.mean(0).square().sum() + b2 * q / (q - 1) * (variance + covariance_)
    torch.testing.assert_close(mmd2_to_uniform(z, LegendreKernel(weights=(b1, b2))), expected)
    # and for a centred cloud the off-diagonal part is the covariance term, but for its divisors
    centred = z - z.mean(0)
    C = torch.cov(centred.T)
    off = (C - C.diagonal().diag()).square().sum() / q
    torch.testing.assert_close(off, moment_terms(z[None], [])[2])


def test_loss_is_pure():
    embeddings = Embeddings.from_views(*cloud())
    for head in (VarianceCovarianceHead(), CrossCorrelationHead()):
        torch.testing.assert_close(head.loss(embeddings), head.loss(embeddings), rtol=0, atol=0)
        assert not head.state_dict()


@pytest.mark.parametrize('head', [VarianceCovarianceHead, CrossCorrelationHead])
def test_bad_batches(head):
    with pytest.raises(ValueError, match='No pair of views'):
        head().loss(Embeddings.from_views(torch.randn(4, 3)))
    with pytest.raises(ValueError, match='batch of 1 image has no variance'):
        head().loss(Embeddings.from_views(torch.randn(1, 3), torch.randn(1, 3)))


def test_bad_options():
    with pytest.raises(ValueError, match="VarianceCovarianceHead.reduction is 'sample' or 'element'"):
        VarianceCovarianceHead(reduction='mean')
    with pytest.raises(ValueError, match='target_std=0.0; expected'):
        VarianceCovarianceHead(target_std=0.0)
    with pytest.raises(ValueError, match='CrossCorrelationHead.eps'):
        CrossCorrelationHead(eps=-1.0)
