import pytest
import torch

from mmkernel.kernels import LegendreKernel, ProductKernel, RBFKernel, ScaledKernel, SumKernel
from mmkernel.kernels.text import kernel_from_text


def test_words():
    assert kernel_from_text('LegendreKernel weights=1,40,40').weights == (1, 40, 40)
    assert kernel_from_text('LegendreKernel weights=40').weights == (40,)
    assert kernel_from_text("  RBFKernel scale='2' ".replace("'", '')).scale == 2
    assert isinstance(kernel_from_text('RBFKernel'), RBFKernel)


def test_words_for_the_width():
    kernel = kernel_from_text('RBFKernel scale=0.5/q radius=sqrt(q)')
    assert (
        kernel.phi(torch.zeros(1), 64).item() == kernel_from_text('RBFKernel scale=0.5').phi(torch.zeros(1), 64).item()
    )
    kernel = kernel_from_text("2 * InverseMultiquadricKernel(c='q', radius=2*sqrt(q)) + HeatKernel(time=5/q)")
    assert kernel.kernels[0].kernel.radius == '2 * sqrt(q)'
    assert 'time=5 / q' in str(kernel_from_text('HeatKernel time=5/q'))


def test_expressions():
    kernel = kernel_from_text('LegendreKernel(weights=(1, 40)) + 0.5 * RBFKernel(scale=2)')
    assert isinstance(kernel, SumKernel)
    assert isinstance(kernel.kernels[1], ScaledKernel)
    t = torch.linspace(-1, 1, 5)
    expected = LegendreKernel((1, 40)).phi(t, 8) + 0.5 * RBFKernel(2).phi(t, 8)
    torch.testing.assert_close(kernel.phi(t, 8), expected)
    assert isinstance(kernel_from_text('RBFKernel() * RBFKernel(scale=1)'), ProductKernel)
    assert isinstance(kernel_from_text('SumKernel(kernels=[RBFKernel(), RBFKernel(scale=1)])'), SumKernel)


@pytest.mark.parametrize(
    'text, message',
    [
        ('RBF', "Did you mean 'RBFKernel'"),
        ('RBFKernel scal=2', "Did you mean 'scale'"),
        ('RBFKernel scale=x', 'is not a kernel'),
        ('RBFKernel scale=-1', 'expected one or more finite numbers > 0'),
        ('RBFKernel(scale=2', 'is not a kernel'),
        ('1 + 2', 'is not a kernel'),
        ('RBFKernel() - RBFKernel()', 'is not a kernel'),
        ("__import__('os')", 'is not a kernel'),
        ('', 'is not a kernel'),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises((ValueError, KeyError), match=message):
        kernel_from_text(text)
