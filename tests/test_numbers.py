"""No option takes NaN, an infinite number, or one beyond its range: every registered part, and the optimizer's groups."""

import inspect
import math

import pytest
from torch import nn

from mmkernel import registry

# What a part needs before its numbers can be tried, by the name of its class.
NEEDED = {
    'ClusterHead': dict(in_dim=4),
    'PredictiveCodingHead': dict(in_dim=4),
    'SinkhornCodesHead': dict(in_dim=4, num_prototypes=4),
    'KernelMMDHead': dict(kernel=dict(type='RBFKernel')),
    'MutualInformationHead': dict(in_dim=4),
    'FeatureQueue': dict(length=8, dim=4),
    'SeparableCritic': dict(in_dim=4),
    'ConcatenatedCritic': dict(in_dim=4),
    'MLPNeck': dict(dims=(4, 4), in_dim=4),
    'DBN': dict(num_features=32),
    'ShuffledDBN': dict(num_features=32),
    'LegendreKernel': dict(weights=(1.0,)),
    'GaussianMixtureKernel': dict(scales=(1.0,)),
    'SteinKernel': dict(kernel=dict(type='RBFKernel')),
    'ScaledKernel': dict(kernel=dict(type='RBFKernel'), scale=1.0),
    'RandomResizedCrop': dict(size=8),
    'CenterCrop': dict(size=8),
    'PaddedCrop': dict(size=8),
    'PatchView': dict(count=1, size=8, parent={}),
    'Classifier': dict(backbone=nn.Identity(), num_classes=3, in_dim=4),
}
# A width is filled in by the model, positions are compared with the batch, a colour is what it is.
FREE = {'seed', 'in_dim', 'online_views', 'target_views', 'memory_views', 'fill'}
SIGNED = {'log_baseline', 'constant', 'mean', 'weights', 'angles'}
KINDS = dict(models=registry.MODELS, kernels=registry.KERNELS, hooks=registry.HOOKS, transforms=registry.TRANSFORMS)


def parts():
    for kind, known in KINDS.items():
        known.import_from_location()
        for name, part in sorted(known.module_dict.items()):
            if not (inspect.isclass(part) and part.__module__.startswith('mmkernel.')):
                continue
            for p in inspect.signature(part).parameters.values():
                if any(word in str(p.annotation) for word in ('float', 'int')) and p.name not in FREE:
                    yield pytest.param(part, p.name, str(p.annotation), id=f'{kind}-{name}-{p.name}')


@pytest.mark.parametrize('part, name, annotation', parts())
@pytest.mark.parametrize('value', [math.nan, math.inf, -1000.0])
def test_no_part_takes_a_number_that_is_none(part, name, annotation, value):
    if value < 0 and name in SIGNED:
        pytest.skip('may be negative')
    needed = dict(NEEDED.get(part.__name__, {}))
    several = 'uple' in annotation or 'Sequence' in annotation
    given = (value,) * (2 if 'float, float' in annotation or 'int, int' in annotation else 1) if several else value
    with pytest.raises((ValueError, OverflowError)):
        part(**{**needed, name: given})
