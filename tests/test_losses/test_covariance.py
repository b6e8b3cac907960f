"""Second-moment terms by either side of the Gram matrix, in both layouts, on several ranks, in half precision."""

import pytest
import torch
import torch.nn.functional as F
from multiprocess import run_processes

from mmkernel.kernels import layouts
from mmkernel.losses import correlation_terms, moment_terms

PAIRS = [(0, 1), (0, 2), (1, 2)]
WIDTHS = (7, 21)  # N = 16: X'X is the smaller one, or XX'; neither 2 nor 4 divides them


def cloud(q, views=3, n=16, dtype=torch.float64):
    generator = torch.Generator().manual_seed(q)
    z = torch.randn(views, n, q, dtype=torch.float64, generator=generator)
    return (z * torch.linspace(0.2, 2, q, dtype=torch.float64) + torch.linspace(-1, 1, q, dtype=torch.float64)).to(
        dtype
    )


def off_diagonal(C):
    return (C - C.diagonal().diag_embed()).square().sum()


def textbook_moments(z, pairs=PAIRS):
    invariance = torch.stack([(z[i] - z[j]).square().mean() for i, j in pairs]).mean()
    variance = torch.stack([torch.relu(1 - (v.var(0) + 1e-4).sqrt()).mean() for v in z]).mean()
    return invariance, variance, torch.stack([off_diagonal(torch.cov(v.T)) / z.shape[-1] for v in z]).mean()


def textbook_correlation(z, pairs=PAIRS):
    a = [F.batch_norm(v, None, None, training=True) for v in z]
    C = [a[i].T @ a[j] / len(a[i]) for i, j in pairs]
    return (
        torch.stack([(c.diagonal() - 1).square().sum() for c in C]).mean(),
        torch.stack([off_diagonal(c) for c in C]).mean(),
    )


FORMS = dict(
    moments=(textbook_moments, lambda z, **options: moment_terms(z, PAIRS, **options)),
    correlation=(textbook_correlation, lambda z, **options: correlation_terms(z, None, PAIRS, **options)),
)
every_form = pytest.mark.parametrize('form', FORMS)
every_width = pytest.mark.parametrize('q', WIDTHS)


def gradients(terms, z):
    """Of each term by itself, then of a weighted sum, all from one graph."""
    each = [torch.autograd.grad(term, z, retain_graph=True)[0] for term in terms]
    weighted = sum((k + 1.5) * term for k, term in enumerate(terms))
    return [*each, torch.autograd.grad(weighted, z, retain_graph=True)[0]]


def close(ours, expected, tolerance=1e-12):
    for a, b in zip(ours, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@every_form
@every_width
@pytest.mark.parametrize('budget', [40, 2**22])
def test_value_and_every_gradient(form, q, budget, monkeypatch):
    monkeypatch.setitem(layouts.BLOCK_ENTRIES, 'cpu', budget)
    z = cloud(q).requires_grad_()
    plain, ours = (f(z) for f in FORMS[form])
    close(ours, plain)
    close(gradients(ours, z), gradients(plain, z))


@every_form
@every_width
def test_single_precision_with_a_far_mean(form, q):
    z = (cloud(q) + 100).requires_grad_()
    plain, single = FORMS[form][0](z), z.detach().float().requires_grad_()
    ours = FORMS[form][1](single)
    close([x.double() for x in ours], plain, 1e-4)  # the input itself was rounded to 4e-6
    close([x.double() for x in gradients(ours, single)], gradients(plain, z), 1e-3)


def on_rank(rank, world_size):
    results = {}
    for form, (_, ours) in FORMS.items():
        for q in WIDTHS:
            for layout in ('rows', 'columns'):
                z = cloud(q).chunk(world_size, dim=1)[rank].clone().requires_grad_()
                terms = ours(z, layout=layout)
                results[f'{form} {q} {layout}'] = [*(t.detach() for t in terms), *gradients(terms, z)]
    return results


@pytest.mark.parametrize('world_size', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_form_the_union_batch(world_size):
    """Values on every rank; gradients W times those of the union, so that their mean over ranks is it."""
    outcomes = run_processes(on_rank, world_size)
    for name in outcomes[0]:
        form, q, _ = name.split()
        z = cloud(int(q)).requires_grad_()
        terms = FORMS[form][0](z)
        count = len(terms)
        for outcome in outcomes:
            close(outcome[name][:count], terms)
        expected = gradients(terms, z)
        for k, gradient in enumerate(expected):
            made = torch.cat([outcome[name][count + k] for outcome in outcomes], dim=1) / world_size
            close([made], [gradient])


def with_half_transport(rank, world_size):
    z = cloud(21, dtype=torch.float32).chunk(world_size, dim=1)[rank].clone().requires_grad_()
    options = dict(transport_dtype='bfloat16')
    return [
        torch.autograd.grad(sum(FORMS[form][1](z, layout=layout, **options)), z)[0]
        for form in FORMS
        for layout in ('rows', 'columns')
    ]


def test_half_transport():
    outcomes = run_processes(with_half_transport, 2)
    z = cloud(21).requires_grad_()
    expected = [torch.autograd.grad(sum(plain(z)), z)[0] for plain, _ in FORMS.values() for _ in range(2)]
    for k, gradient in enumerate(expected):
        made = torch.cat([outcome[k] for outcome in outcomes], dim=1).double() / 2
        assert (made - gradient).norm() <= 2e-2 * gradient.norm()


@every_form
@pytest.mark.parametrize('precision', ['bfloat16', 'float16'])
@pytest.mark.parametrize('shape', [(128, 1024), (256, 64)])
def test_half_precision_gradient(form, precision, shape):
    z = (cloud(shape[1], views=3, n=shape[0]) + 3).requires_grad_()
    expected = torch.autograd.grad(FORMS[form][0](z)[-1], z)[0]
    single = z.detach().float().requires_grad_()
    made = torch.autograd.grad(FORMS[form][1](single, precision=precision)[-1], single)[0]
    assert (made - expected).norm() <= 1e-2 * expected.norm()


@every_form
def test_half_and_non_contiguous_input(form):
    z = cloud(21).float().requires_grad_()
    expected = torch.autograd.grad(sum(FORMS[form][1](z)), z)[0]
    across = z.detach().transpose(0, 2).contiguous().transpose(0, 2).requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(sum(FORMS[form][1](across)), across)[0], expected)
    half = z.detach().half().requires_grad_()
    gradient = torch.autograd.grad(sum(FORMS[form][1](half)), half)[0]
    assert gradient.dtype == torch.float16
    torch.testing.assert_close(gradient.float(), expected, rtol=0.05, atol=1e-3)


@every_form
@every_width
def test_no_second_derivative(form, q):
    z = cloud(q).requires_grad_()
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(sum(FORMS[form][1](z)), z, create_graph=True)


def test_a_target_of_its_own():
    """Predicted and target views that are different tensors, with and without a gradient of the target."""
    for q in WIDTHS:
        z = cloud(q, views=4).requires_grad_()
        pairs = [(0, 1), (1, 0)]
        expected = textbook_correlation(z, [(0, 3), (1, 2)])
        close(gradients(correlation_terms(z[:2], z[2:], pairs), z), gradients(expected, z))
        own = correlation_terms(z[:2], z[2:].detach(), pairs)
        close([g[:2] for g in gradients(own, z)], [g[:2] for g in gradients(expected, z)])


def test_covariance_may_be_logged_or_left_out():
    z = cloud(21).requires_grad_()
    full, value, none = (moment_terms(z, PAIRS, covariance=word) for word in ('trained', 'value', 'none'))
    assert value[2] == full[2]
    assert none[2] == 0
    for terms in (value, none):
        close(gradients(terms[:2], z), gradients(full[:2], z))


def test_unequal_and_unknown():
    with pytest.raises(ValueError, match='batch of 1 image has no variance'):
        moment_terms(torch.randn(2, 1, 4), [])
    with pytest.raises(ValueError, match="got 'off'"):
        moment_terms(torch.randn(2, 4, 4), [], covariance='off')
    with pytest.raises(ValueError, match='precision is one of'):
        correlation_terms(torch.randn(2, 4, 4), None, [(0, 1)], precision='half')


def test_hinge_by_hand():
    z = torch.tensor([[[0.0, 0.0], [0.2, 6.0]]], dtype=torch.float64)  # variances 0.02 and 18
    variance = moment_terms(z, [], target_std=1.0, eps=1e-4, covariance='none')[1]
    assert variance.item() == pytest.approx((1 - 0.0201**0.5) / 2)


def test_small_off_diagonal_entries_survive_single_precision():
    """A large trace must not drown them: sum C^2 - sum C_ii^2 in float32 would."""
    z = torch.randn(1, 4096, 64, generator=torch.Generator().manual_seed(0))
    z[..., 0] *= 1e3
    assert moment_terms(z, [])[2].item() == pytest.approx(moment_terms(z.double(), [])[2].item(), rel=1e-4)


def test_correlation_of_a_view_with_itself():
    """C is torch's correlation matrix, its diagonal 1."""
    z = cloud(6, views=1)
    on, off = correlation_terms(z, z, [(0, 0)], eps=0.0)
    torch.testing.assert_close(off, off_diagonal(torch.corrcoef(z[0].T)))
    assert on.item() == pytest.approx(0, abs=1e-20)
