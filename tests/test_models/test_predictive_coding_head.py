"""PredictiveCodingHead: what a context may see, which patch is the right one, and what goes wrong."""

import math

import pytest
import torch

from mmkernel.models import Embeddings, MaskedConvContext, PredictiveCodingHead

ALL = ('down', 'up', 'right', 'left')


def head(**options):
    torch.manual_seed(0)
    given = dict(steps=2, grid=(3, 4), in_dim=5, context=dict(dim=6, blocks=2))
    return PredictiveCodingHead(**{**given, **options}).double()


def patches(images=4, grid=(3, 4)):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(math.prod(grid), images, 5, dtype=torch.float64, generator=generator)


def test_a_context_sees_no_row_below():
    torch.manual_seed(0)
    context = MaskedConvContext(in_dim=16, dim=32, blocks=3).double()
    z = torch.randn(1, 16, 5, 5, dtype=torch.float64, requires_grad=True)
    for row in range(5):
        (gradient,) = torch.autograd.grad(context(z)[0, :, row, 2].sum(), z)
        reached = gradient[0].abs().sum(0).sum(1) > 0
        assert not reached[row + 1 :].any()
        assert reached[max(row - 3, 0) : row + 1].all()


@pytest.mark.parametrize('direction', ALL)
def test_the_right_patch_lies_in_the_direction(direction):
    """The patch itself as context, a shift as predictor, and patches that only say their row or column."""
    ours = head(directions=(direction,), steps=1, scale=50.0)
    ours.contexts[0] = torch.nn.Identity()
    rows, columns = torch.arange(3).repeat_interleave(4), torch.arange(4).repeat(3)
    place = rows if direction in ('down', 'up') else columns
    one_hot = torch.eye(5, dtype=torch.float64)
    step = 1 if direction in ('down', 'right') else -1
    ours.predictors[0][0].weight.data = one_hot.roll(step, 0)  # row p -> row p + step
    loss = ours.loss(Embeddings.from_views(*one_hot[place][:, None]))['loss_prediction']
    ties = 4 if direction in ('down', 'up') else 3  # patches of one row (column) are alike
    assert loss.item() == pytest.approx(math.log(ties), abs=1e-9)


def test_no_information_at_the_start_and_a_bound():
    ours = head(directions=ALL)
    parts = ours.loss(Embeddings.from_views(*(0 * patches())))
    assert parts['prediction'].item() == pytest.approx(math.log(4 * 12))
    assert parts['mutual_information'].item() == pytest.approx(0, abs=1e-12)
    assert len(ours.contexts) == 4
    assert [len(p) for p in ours.predictors] == [2] * 4


def test_a_row_ahead_changes_only_targets():
    """The gradient of the context side never reaches patches below: with detached candidates the last row gets none."""
    ours, online = head(), patches().requires_grad_()
    z = ours.as_grid(online)
    c = ours.contexts[0](z.permute(0, 3, 1, 2))
    (gradient,) = torch.autograd.grad(c[:, :, :-1].sum(), online)
    assert not ours.as_grid(gradient)[:, -1].any()


def test_loss_is_pure():
    ours = head()
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    first, second = (ours.loss(Embeddings.from_views(*patches())) for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(before[k], v) for k, v in ours.state_dict().items())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_dim=None), 'in_dim is None'),
        (dict(directions=()), "directions are some of .*'down'"),
        (dict(directions=('down', 'down')), 'directions are some of'),
        (dict(directions=('forward',)), 'directions are some of'),
        (dict(steps=3), 'a grid of 3 x 4 patches has 2 steps to predict down'),
        (dict(steps=4, directions=('left',)), 'has 3 steps to predict left'),
        (dict(context=dict(dim=0)), 'MaskedConvContext.dim=0'),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        head(**options)


def test_other_number_of_views():
    with pytest.raises(ValueError, match='grid = 3 x 4 expects 12 views, the batch has 9'):
        head().loss(Embeddings.from_views(*patches(grid=(3, 3))))
