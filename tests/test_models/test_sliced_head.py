"""SlicedHead: the authors' totals from its options, slices that a resume draws again, views that are global."""

import copy

import numpy as np
import pytest
import torch

from mmkernel.losses import sliced
from mmkernel.losses.alignment import pairs_of_views
from mmkernel.models import Embeddings, SlicedHead, VarianceCovarianceHead
from mmkernel.registry import MODELS


class GivenSlices(SlicedHead):
    """Slices of a file in place of drawn ones."""

    given: torch.Tensor

    def slices(self, like):
        return self.given.to(like)


def of_views(glob, loc):
    """Global views come first and are the targets."""
    z = torch.cat([glob, loc])
    views, targets = tuple(range(len(z))), tuple(range(len(glob)))
    pairs = pairs_of_views(views, targets)
    return Embeddings(z, z, z[: len(glob)], pairs, torch.arange(z.shape[1]), views, targets)


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)
def test_defaults_are_the_published_loss(golden, dtype, tolerance, device):
    g = golden('lejepa_lightly_2g3l_n16_q12')
    views = [torch.from_numpy(g[f'in_{name}']).to(device, dtype).requires_grad_() for name in ('glob', 'loc')]
    head = GivenSlices()
    head.given = torch.from_numpy(g['in_slices'])
    parts = head.loss(of_views(*views))
    total = parts['loss_alignment'] + parts['loss_normality']
    total.backward()
    assert total.item() == pytest.approx(float(g['out_loss']), rel=tolerance)
    assert parts['alignment'].item() == pytest.approx(float(g['out_inv']), rel=tolerance)
    assert parts['normality'].item() == pytest.approx(float(g['out_sigreg']), rel=tolerance)
    for view, name in zip(views, ('glob', 'loc'), strict=True):
        expected = g[f'grad_{name}']
        assert np.abs(view.grad.cpu().numpy() - expected).max() <= 10 * tolerance * np.abs(expected).max()


def test_standardised_slices(golden):
    """Its quantiles were rounded to float32, which the total shows in the eighth digit."""
    g = golden('visreg_lightly_2g2l_n20_q8')
    weight = float(g['hp_lam'])
    weights = dict.fromkeys(('normality_weight', 'scale_weight', 'center_weight'), weight)
    head = GivenSlices(
        'wasserstein', standardize=True, alignment_weight=1 - weight, **weights, eps=float(g['hp_eps']), scale_eps=0.0
    )
    head.given = torch.from_numpy(g['in_slices'])
    parts = head.loss(of_views(torch.from_numpy(g['in_glob']), torch.from_numpy(g['in_loc'])))
    total = sum(value for name, value in parts.items() if name.startswith('loss_'))
    assert total.item() == pytest.approx(float(g['out_loss']), rel=1e-7)
    for ours, theirs in dict(alignment='pred', scale='scale', center='center', normality='shape').items():
        assert parts[ours].item() == pytest.approx(float(g[f'out_{theirs}']), rel=1e-7), ours


def views(count=2, n=20, q=6):
    return torch.randn(count, n, q, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_resumed_head_draws_what_it_would_have_drawn():
    z, head = views(), SlicedHead(num_slices=16)
    first = head(*z)
    torch.testing.assert_close(head(*z), first, rtol=0, atol=0)  # loss is pure
    head.commit()
    state = copy.deepcopy(head.state_dict())
    second = head(*z)
    head.commit(real=torch.tensor(False))
    third = head(*z)
    assert len({first.item(), second.item(), third.item()}) == 3
    resumed = SlicedHead(num_slices=16)
    resumed.load_state_dict(state)
    torch.testing.assert_close(resumed(*z), second, rtol=0, atol=0)
    assert SlicedHead(num_slices=16, seed=1)(*z) != first


def test_slices_lie_on_every_view_by_itself():
    z, head = views(3), SlicedHead(num_slices=8, align='pairs', alignment_weight=0.0, normality_weight=1.0)
    expected = torch.stack([sliced(view, head.slices(view)) for view in z]).mean()
    torch.testing.assert_close(head(*z), expected)
    torch.testing.assert_close(head(z[0]), sliced(z[0], head.slices(z)))  # without an alignment, one view is enough


@pytest.mark.parametrize('reduction, factor', [('element', 1), ('sample', 6)])
@pytest.mark.parametrize('factory', [SlicedHead, VarianceCovarianceHead], ids=lambda f: f.__name__)
def test_alignment_to_pairs_or_to_the_mean_of_the_targets(factory, reduction, factor):
    z, name = views(4), 'alignment' if factory is SlicedHead else 'invariance'
    glob, loc = z[:2], z[2:]
    found = {a: factory(align=a, reduction=reduction).loss(of_views(glob, loc))[name] for a in ('pairs', 'mean')}
    torch.testing.assert_close(found['mean'], factor * (z - glob.mean(0)).square().mean())
    pairs = pairs_of_views(range(4), range(2))
    torch.testing.assert_close(
        found['pairs'], factor * torch.stack([(z[i] - z[j]).square().mean() for i, j in pairs]).mean()
    )


@pytest.mark.parametrize(
    'option',
    [
        dict(statistic='normal'),
        dict(num_slices=0),
        dict(knots=1),
        dict(t_max=0.0),
        dict(clamp=0.1),
        dict(align='targets'),
        dict(reduction='mean'),
        dict(normality_weight=-1.0),
        dict(eps=-1.0),
    ],
)
def test_bad_options(option):
    with pytest.raises(ValueError, match=f'SlicedHead.{next(iter(option))}'):
        MODELS.build(dict(type='SlicedHead', **option))
