"""The public functions, given views alone, are the heads' values."""

import pytest
import torch

from mmkernel import losses
from mmkernel.models import (
    CosinePredictionHead,
    CrossCorrelationHead,
    InfoNCEHead,
    VarianceCovarianceHead,
    WhiteningHead,
)


def second_moments(z, p, t):
    invariance, variance, covariance = losses.moment_terms(z)
    return 25 * invariance + 25 * variance + 2 * covariance


def correlation(z, p, t):
    on_diagonal, off_diagonal = losses.correlation_terms(z)
    return on_diagonal + 0.0051 * off_diagonal


def whitened(z, p, t):
    rows = losses.whiten_views(z[None, :, None]).rows
    return losses.whitened_distance(rows, rows)


FUNCTIONS = {
    'second moments': (second_moments, VarianceCovarianceHead(), False),
    'correlation': (correlation, CrossCorrelationHead(), False),
    'whitened': (whitened, WhiteningHead(), False),
    'NT-Xent': (lambda z, p, t: losses.nt_xent(z, 0.1), InfoNCEHead(0.1), False),
    'in-batch': (
        lambda z, p, t: losses.in_batch_info_nce(p, t, 0.1),
        InfoNCEHead(0.1, negatives='targets'),
        True,
    ),
    'cosine': (lambda z, p, t: losses.paired_distance(p, t), CosinePredictionHead(), True),
}


@pytest.mark.parametrize('V', [2, 3])
@pytest.mark.parametrize('name', FUNCTIONS)
def test_equals_the_head(name, V):
    function, head, predicts = FUNCTIONS[name]
    generator = torch.Generator().manual_seed(V)
    z, p, t = torch.randn(3, V, 24, 6, dtype=torch.float64, generator=generator)
    expected = head(*z, predicted=tuple(p), target=tuple(t)) if predicts else head(*z)
    assert function(z, p, t).item() == pytest.approx(expected.item(), rel=1e-12)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


OF_RAW_ROWS = {  # of the sizes that raw outputs of a projector have
    losses.squared_distance: lambda z, s: (300 * z[0], 300 * z[1]),
    losses.alignment: lambda z, s: (z[0], z[1], 2.0, True),
    losses.uniformity: lambda z, s: (z[0], 2.0, True),
    losses.paired_distance: lambda z, s: (300 * z, 300 * z.flip(0)),
    losses.cluster_cross_entropy: lambda z, s: (z, torch.arange(24) % 6),
    losses.swapped_prediction: lambda z, s: (z, z.softmax(-1), 0.1),
    losses.nt_xent: lambda z, s: (z, 0.1),
    losses.in_batch_info_nce: lambda z, s: (z, z.flip(0), 0.1),
    losses.queue_info_nce: lambda z, s: (z, z.flip(0), z.flip(1), 0.1),
    losses.moment_terms: lambda z, s: (300 * z,),
    losses.correlation_terms: lambda z, s: (300 * z,),
    losses.infonce_bound: lambda z, s: (s,),
    losses.dv_bound: lambda z, s: (s,),
    losses.tuba_bound: lambda z, s: (s,),
    losses.nwj_bound: lambda z, s: (s,),
    losses.js_bound: lambda z, s: (s,),
    losses.interpolated_bound: lambda z, s: (s, 0.5),
    losses.prediction_loss: lambda z, s: ([z], z.flatten(0, 1), [torch.arange(48).view(2, 24)]),
    losses.whitened_distance: lambda z, s: (z[None, :, None], z[None, :, None].flip(1)),
    losses.whitening_matrix: lambda z, s: (z[0].T @ z[0], 'zca'),
}


@pytest.mark.parametrize('function', OF_RAW_ROWS, ids=lambda function: function.__name__)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_and_autocast_give_the_value_of_float32(function, dtype):
    def cast(x, dtype):
        if isinstance(x, list):
            return [cast(item, dtype) for item in x]
        return x.to(dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x

    def value(found):
        return torch.stack(found[:2]) if isinstance(found, tuple) else found

    rows, scores = drawn(2, 24, 6).to(dtype).float(), drawn(8, 8)
    halves = [cast(x, dtype) for x in OF_RAW_ROWS[function](rows, scores)]
    exact = value(function(*[cast(x, torch.float32) for x in halves]))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = value(function(*halves))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


def test_a_view_is_not_compared_with_itself():
    z = torch.randn(1, 8, 4)
    with pytest.raises(ValueError, match='No pair of views'):
        losses.paired_distance(z, z)
    scores, codes = torch.randn(2, 5, 3), torch.softmax(torch.randn(2, 5, 3), -1)
    swapped = losses.swapped_prediction(scores, codes, 1.0)
    assert torch.equal(swapped, losses.swapped_prediction(scores, codes, 1.0, [(0, 1), (1, 0)]))
