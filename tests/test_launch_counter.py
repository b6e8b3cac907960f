import pytest
import torch
from launches import Launches, kept_for_backward

Z = torch.randn(4, 6)


@pytest.mark.parametrize(
    ('compute', 'expected'),
    [
        (lambda: Z * 2 + 1, 2),
        (lambda: Z.view(2, 12)[:, 1:].T, 0),
        (lambda: torch.empty(3), 0),
        (lambda: torch.zeros(3), 1),
        (lambda: torch.stack([Z[0], Z[1]]), 1),
        (lambda: Z.double(), 1),
        (lambda: Z.masked_fill(Z > 0, 1.0), 2),
        (lambda: Z.T.contiguous(), 1),
    ],
)
def test_what_counts(compute, expected):
    with Launches() as launches:
        compute()
    assert launches.total == expected, launches


def test_a_composed_operator_counts_by_its_parts():
    with Launches() as launches:
        result = Z.logsumexp(1)
    torch.testing.assert_close(result, Z.double().exp().sum(1).log().float())
    assert launches.names['logsumexp'] == 0
    assert launches.names['exp_'] == launches.names['sum'] == 1


def test_backward_counts():
    z = Z.clone().requires_grad_()
    with Launches() as launches:
        z.exp().sum().backward()
    assert launches.total == 4, launches  # exp, sum, the 1 that starts backward, mul


def test_largest_and_kept():
    z = Z.clone().requires_grad_()
    with Launches() as launches, kept_for_backward() as kept:
        (z[:, None] - z[None]).square().sum().backward()
    assert launches.largest == 4 * 4 * 6 * 4
    assert kept == [4 * 4 * 6 * 4]


def test_host_reads():
    with Launches() as launches:
        float(Z.sum())
        bool((Z > 0).any())
        Z.nonzero()
    assert launches.host_reads == 3
