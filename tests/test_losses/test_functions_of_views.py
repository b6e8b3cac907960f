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


def test_a_view_is_not_compared_with_itself():
    z = torch.randn(1, 8, 4)
    with pytest.raises(ValueError, match='No pair of views'):
        losses.paired_distance(z, z)
    scores, codes = torch.randn(2, 5, 3), torch.softmax(torch.randn(2, 5, 3), -1)
    swapped = losses.swapped_prediction(scores, codes, 1.0)
    assert torch.equal(swapped, losses.swapped_prediction(scores, codes, 1.0, [(0, 1), (1, 0)]))
