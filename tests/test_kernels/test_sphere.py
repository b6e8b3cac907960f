import pytest
import torch
import torch.nn.functional as F
from launches import Launches

from mmkernel.kernels.sphere import unit_rows


def rows():
    return torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_values_and_gradients_are_those_of_the_quotient():
    x = rows().requires_grad_()
    torch.testing.assert_close(unit_rows(x), F.normalize(x, dim=-1), rtol=1e-15, atol=1e-15)
    assert torch.autograd.gradcheck(unit_rows, x)


@pytest.mark.parametrize('point', [True, False])
def test_rows_without_a_direction_are_one_point_and_have_no_gradient(point):
    x = rows()
    x[1, 2] = 0
    x[2, 0] = 1e-200  # its square is 0
    u = unit_rows(x.requires_grad_(), point)
    expected = torch.tensor([float(point), 0, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(u[1, 2], expected)
    torch.testing.assert_close(u[2, 0], expected, rtol=0, atol=1e-150)
    (u * rows().flip(0)).sum().backward()
    assert not x.grad[1, 2].any()
    assert not x.grad[2, 0].any()
    assert x.grad[0].abs().min() > 1e-3


def test_nan_stays_nan():
    x = rows()
    x[0, 0, 1] = torch.nan
    assert unit_rows(x)[0, 0].isnan().all()
    assert unit_rows(x)[1:].isfinite().all()


def test_a_norm_beyond_the_dtype_is_no_direction_to_go_on_with():
    x = rows()
    torch.testing.assert_close(unit_rows(1e30 * x), unit_rows(x))
    x = x.float()
    x[0, 0] *= 1e30  # its square is infinite
    assert unit_rows(x)[0, 0].isnan().all()
    assert unit_rows(x)[1:].isfinite().all()


def test_few_launches():
    x = rows().requires_grad_()
    unit_rows(x).sum().backward()
    x.grad = None
    with Launches() as launches:
        unit_rows(x).backward(x.detach())
    assert launches.total <= 10, launches
