"""How many launches each objective costs, forward and backward, and that none of them waits for the device.

``python tests/test_models/test_launches_of_heads.py`` writes the table that the tests hold the heads to.
"""

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from launches import Launches

from mmkernel.losses.alignment import pairs_of_views
from mmkernel.models import Embeddings
from mmkernel.models.joint_embedding import build_part
from mmkernel.registry import MODELS

TABLE = Path(__file__).resolve().parents[2] / 'benchmarks/results/launches.json'
B, Q = 64, 16  # the counts do not depend on them, while one block holds what there is
BOUNDS = ('infonce', 'nwj', 'dv', 'tuba', 'js', 'interpolated')
QUEUE = dict(type='FeatureQueue', length=128, views=2)
HEADS = {
    **{
        f'WhiteningHead, {m}': dict(type='WhiteningHead', method=m)
        for m in ('cholesky', 'cholesky_precision', 'zca', 'pca', 'zca_cor', 'pca_cor')
    },
    'WhiteningHead, cholesky, 4 x sub-batches': dict(type='WhiteningHead', sub_batch_size=32, iterations=4),
    'WhiteningHead, squared, joint': dict(type='WhiteningHead', distance='squared', statistics='joint'),
    'CosinePredictionHead': dict(type='CosinePredictionHead'),
    'SinkhornCodesHead': dict(type='SinkhornCodesHead', num_prototypes=12),
    'SinkhornCodesHead, queue': dict(type='SinkhornCodesHead', num_prototypes=12, queue_length=128),
    'ClusterHead, three sets of centroids': dict(type='ClusterHead', num_clusters=(5, 5, 5)),
    'ClusterHead, linear': dict(type='ClusterHead', num_clusters=(5,), classifier='linear', normalize=False),
    'PredictiveCodingHead, 3 x 3, two steps': dict(
        type='PredictiveCodingHead', steps=2, grid=(3, 3), context=dict(dim=8, blocks=2)
    ),
    'SlicedHead': dict(type='SlicedHead', num_slices=32),
    'SlicedHead, cramer': dict(type='SlicedHead', num_slices=32, statistic='cramer'),
    'SlicedHead, wasserstein, standardised': dict(
        type='SlicedHead', num_slices=32, statistic='wasserstein', standardize=True
    ),
    'KernelMMDHead, normal': dict(
        type='KernelMMDHead', kernel=dict(type='InverseMultiquadricKernel', c='q'), target='normal', align='mean'
    ),
    'KernelMMDHead, normal, (u.v)^2': dict(
        type='KernelMMDHead', kernel=dict(type='PolynomialKernel'), target='normal', statistic='V'
    ),
    'EntropyHead': dict(type='EntropyHead'),
    'EntropyHead, kernel': dict(type='EntropyHead', kernel=dict(type='RBFKernel', scale=2.0)),
    **{f'SpectrumHead, {o}': dict(type='SpectrumHead', objective=o) for o in ('centroids', 'wasserstein', 'frobenius')},
    'SpectralContrastiveHead': dict(type='SpectralContrastiveHead'),
    'QuadraticMemoryHead': dict(type='QuadraticMemoryHead'),
    'LogDetHead': dict(type='LogDetHead'),
    'InfoNCEHead, queue': dict(type='InfoNCEHead', negatives='queue', queue=QUEUE),
    'InfoNCEHead, targets': dict(type='InfoNCEHead', negatives='targets'),
    'SumHead of CosinePredictionHead and WhiteningHead': dict(
        type='SumHead', heads=dict(a=dict(type='CosinePredictionHead'), b=dict(type='WhiteningHead'))
    ),
    **{f'MutualInformationHead, {b}': dict(type='MutualInformationHead', bound=b) for b in BOUNDS},
    'MutualInformationHead, infonce, concatenated': dict(
        type='MutualInformationHead', critic=dict(type='ConcatenatedCritic', dims=(8, 8))
    ),
    'MutualInformationHead, tuba, learned baseline': dict(
        type='MutualInformationHead', bound='tuba', log_baseline='learned'
    ),
}
NORMS = {
    'DBN': dict(type='DBN', groups=2),
    'DBN, 5 Newton steps': dict(type='DBN', groups=2, iterations=5),
    'ShuffledDBN': dict(type='ShuffledDBN', groups=2),
}


def launches_of_head(config: dict) -> Launches:
    torch.manual_seed(0)
    head = build_part(dict(config), in_dim=Q)
    if getattr(head, 'queue', None) is not None:
        head.queue.enable()
    if hasattr(head, 'pseudo'):
        head.prepare(B)
        for h, K in enumerate(head.num_clusters):
            head.pseudo.set(h, torch.arange(B), torch.arange(B) % K)
    V = 9 if config['type'] == 'PredictiveCodingHead' else 2
    z, views = torch.randn(V, B, Q, requires_grad=True), tuple(range(V))
    embeddings = Embeddings(z, z, z, pairs_of_views(views, views), torch.arange(B), views, views)

    def step():
        for p in (z, *head.parameters()):
            p.grad = None
        parts = head.loss(embeddings)
        sum(value for name, value in parts.items() if name.startswith('loss_')).backward()

    for _ in range(3):  # a queue is full then
        step()
        head.commit()
    with Launches() as launches:
        step()
    with Launches() as commit:
        head.commit()
    assert commit.host_reads == 0
    return launches


def launches_of_norm(config: dict) -> Launches:
    norm = MODELS.build(dict(config, num_features=Q))
    x, upstream = torch.randn(B, Q, requires_grad=True), torch.randn(B, Q)
    with Launches() as launches:
        norm(x).backward(upstream)
    return launches


def counted() -> dict[str, Launches]:
    heads = {name: launches_of_head(config) for name, config in HEADS.items()}
    return {**heads, **{name: launches_of_norm(config) for name, config in NORMS.items()}}


@pytest.mark.parametrize('name', [*HEADS, *NORMS])
def test_no_more_launches_than_the_table_says(name):
    launches = launches_of_head(HEADS[name]) if name in HEADS else launches_of_norm(NORMS[name])
    table = json.loads(TABLE.read_text())
    assert launches.total <= table['launches'][name] <= table['before'][name], launches
    assert launches.host_reads == 0


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    table = json.loads(TABLE.read_text())
    table['launches'] = {name: launches.total for name, launches in counted().items()}
    TABLE.write_text(json.dumps(table, indent=1) + '\n')
