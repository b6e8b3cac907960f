"""KernelMMDHead against the authors' own code: values, components and gradients."""

import warnings

import numpy as np
import pytest
import torch

from mmkernel.evaluation import run_kernel
from mmkernel.kernels import (
    EppsPulleyKernel,
    EppsPulleyKnotsKernel,
    InverseMultiquadricKernel,
    Kernel,
    LegendreKernel,
    PolynomialKernel,
    RBFKernel,
    kernel_energy,
    mmd2_to_normal,
    mmd2_to_uniform,
)
from mmkernel.losses.alignment import pairs_of_views
from mmkernel.models import Embeddings, KernelMMDHead
from mmkernel.registry import MODELS

DTYPES = {torch.float64: 1e-9, torch.float32: 1e-5}
two_views = pytest.mark.parametrize(
    'case',
    [
        'sfrik_2view_n16_q32_L1_sim4000',
        'sfrik_2view_n16_q32_L2_sim4000',
        'sfrik_2view_n16_q32_L3_sim40000',
        'sfrik_2view_n48_q8_L3_sim4000',
    ],
)
every_dtype = pytest.mark.parametrize('dtype', DTYPES, ids=str)


def rows(array, dtype, device):
    return torch.from_numpy(array).to(device, dtype).requires_grad_()


def legendre_head(g, **options):
    return MODELS.build(
        dict(
            type='KernelMMDHead',
            kernel=dict(type='LegendreKernel', weights=tuple(g['hp_weights'].tolist())),
            alignment_weight=float(g['hp_sim_coeff']),
            kernel_weight=float(g['hp_mmd_coeff']),
            reduction='element',
            **options,
        )
    )


def check(head, embeddings, g, dtype, inputs, components):
    parts = head.loss(embeddings)
    total = parts['loss_alignment'] + parts['loss_kernel']
    total.backward()
    tolerance = DTYPES[dtype]
    assert total.item() == pytest.approx(float(g['out_loss']), rel=tolerance)
    for ours, theirs in components.items():
        assert parts[ours].item() == pytest.approx(float(g[theirs]), rel=tolerance)
    for name, z in inputs.items():
        expected = g[f'grad_{name}']
        assert np.abs(z.grad.cpu().numpy() - expected).max() <= 10 * tolerance * np.abs(expected).max(), name


@two_views
@every_dtype
def test_two_views(golden, case, dtype, device):
    g = golden(case)
    x, y = rows(g['in_x'], dtype, device), rows(g['in_y'], dtype, device)
    check(
        legendre_head(g),
        Embeddings.from_views(x, y),
        g,
        dtype,
        dict(x=x, y=y),
        dict(alignment='out_inv', kernel='out_mmd'),
    )


def multi_crop(stacks, batch, target_views):
    """View-major stacks of rows -> Embeddings with the given target views."""
    online = torch.cat([stack.view(-1, batch, stack.shape[-1]) for stack in stacks])
    views = tuple(range(len(online)))
    pairs = pairs_of_views(views, target_views)
    index = torch.arange(batch, device=online.device)
    return Embeddings(online, online, online[list(target_views)], pairs, index, views, target_views)


@every_dtype
def test_original_and_patches(golden, dtype, device):
    g = golden('sfrik_obow_1p2p5_regsmallFalse')
    inputs = {name: rows(g[f'in_{name}'], dtype, device) for name in ('orig', 'crops', 'patches')}
    embeddings = multi_crop(list(inputs.values()), int(g['hp_bs']), (0,))
    regularize = 'online' if bool(g['hp_reg_small']) else 'target'
    head = legendre_head(g, regularize=regularize)
    check(head, embeddings, g, dtype, inputs, dict(alignment='out_inv', kernel='out_mmd'))


@every_dtype
def test_global_and_small_crops(golden, dtype, device):
    g = golden('sfrik_swavcrop_2p6_regsmallTrue')
    inputs = {'global': rows(g['in_global'], dtype, device), 'small': rows(g['in_small'], dtype, device)}
    embeddings = multi_crop(list(inputs.values()), int(g['hp_bs']), tuple(g['hp_general_indices'].tolist()))
    regularize = 'online' if bool(g['hp_reg_small']) else 'target'
    head = legendre_head(g, regularize=regularize)
    check(head, embeddings, g, dtype, inputs, dict(alignment='out_inv', kernel='out_mmd'))


@every_dtype
def test_alignment_and_uniformity(golden, dtype, device):
    g = golden('sfrikrepo_auh_n16_q32')
    x, y = rows(g['in_x'], dtype, device), rows(g['in_y'], dtype, device)
    head = MODELS.build(
        dict(
            type='KernelMMDHead',
            kernel=dict(type='RBFKernel', scale=float(g['hp_auh_scale'])),
            alignment_weight=float(g['hp_auh_sim_coeff']),
            kernel_weight=float(g['hp_auh_unif_coeff']),
            statistic='U',
            log=True,
            reduction='element',
        )
    )
    components = dict(alignment='out_inv', kernel='out_unif')
    check(head, Embeddings.from_views(x, y), g, dtype, dict(x=x, y=y), components)


def head(**options):
    return MODELS.build(dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0)), **options))


def cloud(views=2, batch=10, q=6):
    return [
        torch.randn(batch, q, dtype=torch.float64, generator=torch.Generator().manual_seed(v)) for v in range(views)
    ]


def test_reductions_differ_by_the_width():
    embeddings = Embeddings.from_views(*cloud())
    element = head(reduction='element', alignment_weight=6.0).loss(embeddings)
    sample = head(reduction='sample', alignment_weight=1.0).loss(embeddings)
    torch.testing.assert_close(element['loss_alignment'], sample['loss_alignment'])


def test_unbiased_mmd_is_the_same_from_either_statistic():
    embeddings = Embeddings.from_views(*cloud())
    torch.testing.assert_close(
        head(statistic='V').loss(embeddings)['mmd2'], head(statistic='U').loss(embeddings)['mmd2'], rtol=1e-10, atol=0
    )


def test_loss_is_pure():
    module = head()
    embeddings = Embeddings.from_views(*cloud())
    first, state = module.loss(embeddings), module.state_dict()
    second = module.loss(embeddings)
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert module.state_dict().keys() == state.keys()


def test_log_of_a_kernel_that_can_be_negative():
    with pytest.raises(ValueError, match='log=True needs a kernel with phi > 0'):
        head(statistic='U', log=True).loss(Embeddings.from_views(*cloud()))


class Rough(Kernel):
    """Rounded inside: no b_l is known to 1e-6."""

    def phi(self, t, q):
        return t.exp().float().to(t.dtype)


@pytest.mark.parametrize('statistic', ['V', 'U'])
def test_a_kernel_of_unknown_expansion_trains_without_mmd2(statistic):
    module = KernelMMDHead(Rough(), statistic=statistic)
    embeddings = Embeddings.from_views(*(z.requires_grad_() for z in cloud()))
    with pytest.warns(UserWarning, match=r'No MMD\^2 to uniform: Rough: b_0 at q = \d+ is not known'):
        parts = module.loss(embeddings)
    assert 'mmd2' not in parts
    (parts['loss_kernel'] + parts['loss_alignment']).backward()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        module.loss(embeddings)  # said once
    with pytest.raises(ValueError, match='b_0'), pytest.warns(UserWarning, match='No MMD'):
        mmd2_to_uniform(cloud()[0], Rough())


@pytest.mark.parametrize('option', [dict(statistic='W'), dict(reduction='mean'), dict(regularize='all')])
def test_unknown_words(option):
    with pytest.raises(ValueError, match=f'KernelMMDHead.{next(iter(option))} is'):
        head(**option)


def test_one_view_has_nothing_to_align():
    with pytest.raises(ValueError, match='No pair of views'):
        head().loss(Embeddings.from_views(*cloud(views=1)))


def test_one_image():
    with pytest.raises(ValueError, match='batch of 1 image'):
        head().loss(Embeddings.from_views(*cloud(batch=1)))


def test_nan_embeddings():
    """The training loop's guard sees the loss; a head does not ask the device."""
    x, y = cloud()
    x[3, 2] = float('nan')
    parts = head().loss(Embeddings.from_views(x, y))
    assert parts['loss_kernel'].isnan()
    assert parts['loss_alignment'].isnan()


@pytest.mark.parametrize(
    'given, words',
    [
        (LegendreKernel, r'got <class .*LegendreKernel.*a class is made by MyKernel\('),
        ('RBFKernel', r"got 'RBFKernel'.*dict\(type=name\)"),
        (torch.exp, 'subclass of Kernel'),
    ],
)
def test_what_is_no_kernel_is_refused_with_the_fix(given, words):
    with pytest.raises(TypeError, match=words):
        KernelMMDHead(given)


def normal_views(V=3, n=10, q=6):
    z = torch.randn(V, n, q, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return (1.3 * z + 0.2).unbind()


@pytest.mark.parametrize('statistic', ['V', 'U'])
@pytest.mark.parametrize('kernel', [InverseMultiquadricKernel('q'), EppsPulleyKernel(), PolynomialKernel(2)], ids=str)
def test_against_the_normal_distribution_rows_keep_their_length(kernel, statistic):
    z = normal_views()
    head = KernelMMDHead(kernel, 3.0, 0.5, statistic, target='normal', scale_by_rows=True)
    parts = head.loss(Embeddings.from_views(*z))
    mmd2 = torch.stack([mmd2_to_normal(x, kernel, statistic) for x in z]).mean()
    distance = torch.stack([(z[i] - z[j]).square().sum(-1).mean() for i, j in ((0, 1), (0, 2), (1, 2))]).mean()
    torch.testing.assert_close(parts['loss_kernel'], 0.5 * 10 * mmd2)
    torch.testing.assert_close(parts['loss_alignment'], 3.0 * distance)
    if 'mmd2' in parts:
        unbiased = torch.stack([mmd2_to_normal(x, kernel, 'U') for x in z]).mean()
        torch.testing.assert_close(parts['mmd2'], unbiased)
    assert ('mmd2' in parts) == (statistic == 'U' or not isinstance(kernel, PolynomialKernel))


def test_rows_on_the_sphere_where_the_normal_distribution_lies():
    z = normal_views()
    u = [torch.nn.functional.normalize(x, dim=-1) for x in z]
    head = KernelMMDHead(EppsPulleyKernel(), target='normal', normalize=True, reduction='element')
    parts = head.loss(Embeddings.from_views(*z))
    expected = torch.stack([mmd2_to_normal(x * 6**0.5, EppsPulleyKernel()) for x in u]).mean()
    torch.testing.assert_close(parts['loss_kernel'], expected)
    on_unit_sphere = KernelMMDHead(RBFKernel()).loss(Embeddings.from_views(*z))['alignment']
    torch.testing.assert_close(parts['alignment'], on_unit_sphere)
    # there, the MMD^2 to N(0, I) is an energy on the sphere, but for constants
    energy = torch.stack([kernel_energy(x, EppsPulleyKernel(radius='sqrt(q)')) for x in z]).mean()
    rho = torch.tensor(6.0, dtype=torch.float64)
    constant = EppsPulleyKernel().target_constant(6) - 2 * EppsPulleyKernel().target(rho, 6)
    torch.testing.assert_close(parts['loss_kernel'], energy + constant)


def test_alignment_to_the_mean_of_the_global_views_on_the_sphere():
    z = normal_views()
    u = torch.stack([torch.nn.functional.normalize(x, dim=-1) for x in z])
    parts = KernelMMDHead(RBFKernel(), align='mean', scale_by_rows=True).loss(Embeddings.from_views(*z))
    torch.testing.assert_close(parts['alignment'], (u - u.mean(0)).square().sum(-1).mean())
    plain = KernelMMDHead(RBFKernel()).loss(Embeddings.from_views(*z))
    torch.testing.assert_close(parts['kernel'], 10 * plain['kernel'])
    torch.testing.assert_close(parts['mmd2'], plain['mmd2'])


def test_the_limit_of_a_loss_of_slices(golden):
    """LeJEPA's loss, lambda = .05, with all slices: its invariance to the digit, its slices in the mean."""
    g = golden('lejepa_lightly_2g3l_n16_q12')
    views = torch.from_numpy(np.concatenate([g['in_glob'], g['in_loc']]))
    online, target_views = views, (0, 1)
    pairs = pairs_of_views(range(5), target_views)
    embeddings = Embeddings(online, online, online[:2], pairs, torch.arange(16), tuple(range(5)), target_views)
    kernel = dict(type='EppsPulleyKnotsKernel')
    head = MODELS.build(
        dict(
            type='KernelMMDHead', kernel=kernel, target='normal', align='mean', scale_by_rows=True,
            alignment_weight=0.95, kernel_weight=0.05, reduction='element',
        )
    )  # fmt: skip
    parts = head.loss(embeddings)
    assert parts['alignment'].item() == pytest.approx(float(g['out_inv']), rel=1e-9)
    assert parts['kernel'].item() == pytest.approx(float(g['out_sigreg']), rel=0.1)  # 64 slices


def test_what_does_not_go_with_a_target_is_said():
    for kernel, options, message in (
        (RBFKernel(), dict(target='gaussian'), "target is 'uniform_sphere' or 'normal', got 'gaussian'"),
        (RBFKernel(), dict(normalize=False), "normalize=False with target='uniform_sphere'"),
        (RBFKernel(), dict(target='normal', log=True), "with target='normal' the term is an MMD"),
        (LegendreKernel((1.0,)), dict(target='normal'), 'LegendreKernel is a kernel of the sphere'),
        (RBFKernel(), dict(align='median'), "align is 'pairs' or 'mean'"),
    ):
        with pytest.raises(ValueError, match=message):
            KernelMMDHead(kernel, **options)


def test_the_doctor_takes_a_radial_kernel_to_the_sphere():
    class Model(torch.nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

    mixed = 2 * EppsPulleyKernel() + InverseMultiquadricKernel('q')
    for kernel in (EppsPulleyKnotsKernel(), mixed):
        t = torch.linspace(-1, 1, 5)
        found = run_kernel(Model(KernelMMDHead(kernel, target='normal')))
        torch.testing.assert_close(found.phi(t, 9), kernel.restrict('sqrt(q)').phi(t, 9))
    assert run_kernel(Model(KernelMMDHead(mixed))) is not None
    assert run_kernel(Model(KernelMMDHead(PolynomialKernel(), target='normal'))).degree == 2
    assert run_kernel(Model(torch.nn.Linear(2, 2))) is None
