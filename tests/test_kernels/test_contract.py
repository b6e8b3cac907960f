"""Every registered kernel inherits the contract; a kernel without an example here fails the first test."""

import pytest

from mmkernel.kernels import RadialKernel
from mmkernel.kernels.contract import KernelContract, RadialContract
from mmkernel.registry import KERNELS

RBF = dict(type='RBFKernel', scale=0.7)
CUBIC = dict(type='LegendreKernel', weights=(1.0, 40.0, 40.0))
EXAMPLES = [
    CUBIC,
    dict(type='LegendreKernel', weights=(1.0,)),
    dict(type='LegendreKernel', weights=(0.0, 0.0, 1.0)),
    dict(type='LegendreKernel', weights=(1.0, 2.0, 0.5, 0.1, 0.0, 3.0)),
    dict(type='RBFKernel', scale=2.5),
    dict(type='RieszKernel'),
    dict(type='RieszKernel', exponent=0.5, constant=0.0),
    dict(type='RieszKernel', exponent=2.0),
    dict(type='LaplaceKernel', scale=1.5),
    dict(type='PolynomialKernel', degree=2),
    dict(type='PolynomialKernel', degree=5, constant=0.3),
    dict(type='ArcCosineKernel', order=0),
    dict(type='ArcCosineKernel'),
    dict(type='ArcCosineKernel', order=2),
    dict(type='HeatKernel'),
    dict(type='HeatKernel', time=0.05),
    dict(type='BandlimitedKernel'),
    dict(type='BandlimitedKernel', order=3),
    dict(type='SteinKernel', kernel=CUBIC),
    dict(type='SteinKernel', kernel=RBF),
    dict(type='RBFKernel', scale='0.5/q', radius='sqrt(q)'),
    dict(type='GaussianMixtureKernel', scales=(0.5, '2/q', '1/q'), weights=(1.0, 0.5, 2.0), radius='sqrt(q)'),
    dict(type='InverseMultiquadricKernel'),
    dict(type='InverseMultiquadricKernel', c='q', exponent=1.5, radius='0.5*sqrt(q)'),
    dict(type='EppsPulleyKernel', radius='sqrt(q)'),
    dict(type='EppsPulleyKnotsKernel', radius='sqrt(q)'),
    dict(type='RieszKernel', exponent=1.5, radius='sqrt(q)'),
    dict(type='LaplaceKernel', scale='1/sqrt(q)', radius='sqrt(q)'),
    dict(type='SumKernel', kernels=[RBF, CUBIC]),
    dict(type='ScaledKernel', kernel=CUBIC, scale=0.25),
    dict(type='ProductKernel', kernels=[RBF, dict(type='PolynomialKernel', degree=2)]),
]


def test_every_registered_kernel_has_an_example():
    own = {name for name in KERNELS.names() if KERNELS.get(name).__module__.startswith('mmkernel.')}
    assert own == {example['type'] for example in EXAMPLES}


def is_radial(example):
    return issubclass(KERNELS.get(example['type']), RadialKernel)


class TestRegisteredKernels(KernelContract):
    @pytest.fixture(autouse=True, params=[e for e in EXAMPLES if not is_radial(e)], ids=str)
    def _kernel(self, request):
        self.kernel = KERNELS.build(dict(request.param))


class TestRadialKernels(RadialContract):
    @pytest.fixture(autouse=True, params=[e for e in EXAMPLES if is_radial(e)], ids=str)
    def _kernel(self, request):
        self.kernel = KERNELS.build(dict(request.param))
