"""MutualInformationHead and its critics."""

import pytest
import torch
from launches import Launches, kept_for_backward

from mmkernel.losses import mutual_information as bounds
from mmkernel.models import ConcatenatedCritic, Embeddings, MutualInformationHead, SeparableCritic
from mmkernel.models.heads import information
from mmkernel.registry import MODELS


def views(batch=10, q=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, q, generator=generator)
    return x, x + 0.1 * torch.randn(batch, q, generator=generator)


@pytest.mark.parametrize('bound', bounds.BOUNDS)
@pytest.mark.parametrize('critic', ['SeparableCritic', 'ConcatenatedCritic'])
def test_raising_the_bound(bound, critic):
    torch.manual_seed(0)
    head = MODELS.build(
        dict(type='MutualInformationHead', bound=bound, critic=dict(type=critic), log_baseline='learned', in_dim=4)
    )
    embeddings = Embeddings.from_views(*views(40))
    optimizer = torch.optim.Adam(head.parameters(), lr=3e-3)
    values = []
    for _ in range(40):
        parts = head.loss(embeddings)
        torch.testing.assert_close(parts['loss_mutual_information'], -parts['mutual_information'])
        optimizer.zero_grad()
        parts['loss_mutual_information'].backward()
        optimizer.step()
        values.append(parts['mutual_information'].item())
    assert values[-1] > values[0] + 0.2
    assert all(p.grad is not None for p in head.parameters())


def test_rows_are_the_first_view():
    class Critic(torch.nn.Module):
        def forward(self, y, x):
            return y @ torch.arange(16.0).view(4, 4) @ x.T

    y, x = views()
    parts = MutualInformationHead(critic=Critic()).loss(Embeddings.from_views(y, x))
    torch.testing.assert_close(parts['mutual_information'], bounds.infonce_bound(Critic()(y, x)))


def test_three_views_are_a_mean_over_pairs():
    x, y = views()
    z = (x, y, x.roll(1, 1))
    critic = SeparableCritic(dims=(), in_dim=4)
    head = MutualInformationHead(critic=critic)
    expected = [bounds.infonce_bound(critic(z[i], z[j])) for i, j in ((0, 1), (0, 2), (1, 2))]
    torch.testing.assert_close(head.loss(Embeddings.from_views(*z))['mutual_information'], torch.stack(expected).mean())


def test_separable_critic():
    y, x = views()
    torch.testing.assert_close(SeparableCritic(dims=(), in_dim=4)(y, x[:3]), y @ x[:3].T)
    cosines = SeparableCritic(dims=(), in_dim=4, normalize=True, temperature=0.1)(y, y)
    torch.testing.assert_close(cosines.diagonal(), torch.full((10,), 10.0))
    shared = SeparableCritic(dims=(8, 3), in_dim=4, shared=True)(y, y)
    torch.testing.assert_close(shared, shared.T)
    assert not torch.allclose(*(lambda s: (s, s.T))(SeparableCritic(dims=(8, 3), in_dim=4)(y, y)))


def test_concatenated_critic_is_an_mlp_of_the_pair():
    y, x = views()
    critic = ConcatenatedCritic(dims=(8, 6), in_dim=4)
    first = torch.nn.Linear(8, 8)
    with torch.no_grad():
        first.weight.copy_(torch.cat([critic.first_y.weight, critic.first_x.weight], dim=1))
        first.bias.copy_(critic.first_y.bias)
    pair = torch.cat([y[2], x[5]])
    expected = critic.rest(first(pair)).squeeze()
    torch.testing.assert_close(critic(y, x[:7])[2, 5], expected)


def test_concatenated_critic_keeps_no_pairs(monkeypatch):
    critic = ConcatenatedCritic(dims=(16, 16), in_dim=4).double()
    z = torch.randn(2, 64, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def outcome():
        y, x = z.clone().requires_grad_()
        with Launches() as launches, kept_for_backward() as kept:
            scores = critic(y, x)
            gradient = torch.autograd.grad(scores.square().sum(), list(critic.parameters()))
        return launches.largest, sum(kept), [scores, *gradient]

    pairs = 64 * 64 * 16 * 8  # bytes of pairs x width
    whole_largest, whole_kept, whole = outcome()
    assert whole_largest == pairs
    assert whole_kept >= 2 * pairs
    monkeypatch.setattr(information, 'rows_at_a_time', lambda columns, like: 5)
    largest, kept, blocks = outcome()
    assert largest <= pairs / 12
    assert kept <= pairs / 4
    torch.testing.assert_close(blocks, whole)


def test_bad_options():
    with pytest.raises(ValueError, match='MutualInformationHead.bound is one of'):
        MutualInformationHead(bound='mine', in_dim=4)
    with pytest.raises(ValueError, match="a number or 'learned'"):
        MutualInformationHead(log_baseline='free', in_dim=4)
    with pytest.raises(ValueError, match='alpha=.* at most 1'):
        MutualInformationHead(alpha=-1.0, in_dim=4)
    with pytest.raises(ValueError, match='SeparableCritic.in_dim is None'):
        MutualInformationHead()
    with pytest.raises(ValueError, match='SeparableCritic.temperature=0.0'):
        SeparableCritic(in_dim=4, temperature=0.0)
    with pytest.raises(ValueError, match='ConcatenatedCritic.dims=nothing'):
        ConcatenatedCritic(dims=(), in_dim=4)
    with pytest.raises(ValueError, match='No pair of views'):
        MutualInformationHead(in_dim=4).loss(Embeddings.from_views(views()[0]))
