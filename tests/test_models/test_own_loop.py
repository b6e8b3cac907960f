"""Every head as an objective in anybody's own loop: no config, no runner, one process and two."""

import inspect
import warnings

import pytest
import torch
from host_reads import HostReads
from multiprocess import run_processes
from torch import nn

from mmkernel.distributed import rank as rank_of_process
from mmkernel.distributed import world_size as number_of_processes
from mmkernel.kernels import LegendreKernel
from mmkernel.models import (
    ClusterHead,
    CosinePredictionHead,
    Embeddings,
    FeatureQueue,
    Head,
    InfoNCEHead,
    KernelMMDHead,
    LogDetHead,
    SinkhornCodesHead,
    SlicedHead,
    SumHead,
    VarianceCovarianceHead,
    WhiteningHead,
)
from mmkernel.models.heads.head import PATIENCE
from mmkernel.registry import MODELS

BATCH, WIDTH = 16, 6  # BATCH is global


def registered() -> dict[str, type[Head]]:
    found = (MODELS.get(name) for name in MODELS.names())
    heads = (c for c in found if isinstance(c, type) and issubclass(c, Head) and c is not Head)
    return {c.__name__: c for c in heads if c.__module__.startswith('mmkernel.')}


# What a head cannot do without; everything else is its default. Registering a head is being tested.
NEEDED = dict(
    ClusterHead=dict(num_clusters=(5, 3)),
    KernelMMDHead=dict(kernel=LegendreKernel(weights=(1.0, 40.0, 40.0))),
    LogDetHead=dict(views=3),
    PredictiveCodingHead=dict(steps=1, grid=(3, 1), context=dict(dim=8, blocks=2)),
    SinkhornCodesHead=dict(num_prototypes=6),
    SlicedHead=dict(num_slices=16),
    SumHead=dict(
        heads=dict(pull=dict(type='CosinePredictionHead'), codes=dict(type='SinkhornCodesHead', num_prototypes=6))
    ),
)


def build(name: str, **more) -> Head:
    torch.manual_seed(0)
    factory = registered()[name]
    width = dict(in_dim=WIDTH) if 'in_dim' in inspect.signature(factory).parameters else {}
    head = factory(**NEEDED.get(name, {}), **width, **more).double()
    if isinstance(head, ClusterHead):
        head.prepare(BATCH)
        for h, K in enumerate(head.num_clusters):
            head.pseudo.set(h, torch.arange(BATCH), torch.arange(BATCH) % K)
    return head


def own_loop(name: str, rank: int = 0, world_size: int = 1) -> dict[str, torch.Tensor]:
    """Three steps of SGD on an encoder and the head; the losses, and the weights at the end."""
    head = build(name)
    encoder = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, WIDTH)).double()
    parameters = [p for p in (*encoder.parameters(), *head.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.01)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(3):
        images = torch.randn(3, BATCH, 8, dtype=torch.float64, generator=generator)
        images *= torch.linspace(0.3, 2, BATCH, dtype=torch.float64)[:, None]
        x1, x2, x3 = images.chunk(world_size, dim=1)[rank]
        index = torch.arange(BATCH).chunk(world_size)[rank]
        loss = head(encoder(x1), encoder(x2), encoder(x3), sample_index=index)
        optimizer.zero_grad()
        loss.backward()
        for p in parameters:  # what DistributedDataParallel does
            if world_size > 1:
                torch.distributed.all_reduce(p.grad)
                p.grad /= world_size
        optimizer.step()
        head.commit()
        losses.append(loss.detach())
    return dict(losses=torch.stack(losses), weights=torch.cat([p.detach().flatten() for p in parameters]))


def on_rank(rank: int, world_size: int) -> list[dict[str, torch.Tensor]]:
    assert (rank_of_process(), number_of_processes()) == (rank, world_size)
    return [own_loop(name, rank, world_size) for name in registered()]


@pytest.fixture(scope='module')
def two_processes():
    return [dict(zip(registered(), outcome, strict=True)) for outcome in run_processes(on_rank, 2, timeout=300)]


@pytest.mark.parametrize('name', registered())
def test_one_loop_without_a_config(name, two_processes):
    alone = own_loop(name)
    assert alone['losses'].isfinite().all()
    assert alone['losses'].shape == (3,)
    for outcome in two_processes:
        for key, value in alone.items():
            torch.testing.assert_close(outcome[name][key], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('name', registered())
def test_the_scalar_is_the_sum_of_the_parts(name):
    head, views = build(name), [torch.randn(BATCH, WIDTH).double() for _ in range(3)]
    index = torch.arange(BATCH)
    loss = head(*views, sample_index=index)
    assert loss.shape == ()
    parts = head(Embeddings.from_views(*views, sample_index=index))
    torch.testing.assert_close(sum(v for k, v in parts.items() if k.startswith('loss_')), loss, rtol=0, atol=0)


@pytest.mark.parametrize('name', sorted(set(registered()) - {'ClusterHead', 'PredictiveCodingHead'}))
def test_one_view_is_refused_by_name(name):
    with pytest.raises(ValueError, match='No pair of views .* at least two'):
        build(name)(torch.randn(BATCH, WIDTH).double())


@pytest.mark.parametrize('name', registered())
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_under_autocast_is_computed_in_float32(name, dtype):
    head = build(name).float()
    views = [torch.randn(BATCH, WIDTH, dtype=dtype, requires_grad=True) for _ in range(3)]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = head(*views, sample_index=torch.arange(BATCH))
    loss.backward()
    assert loss.dtype == torch.float32
    exact = head(*(view.detach().float() for view in views), sample_index=torch.arange(BATCH))
    torch.testing.assert_close(loss.detach(), exact.detach())
    assert all(view.grad is not None and view.grad.dtype == dtype for view in views)


def test_predictions_and_targets():
    z1, z2, p1, p2, t1, t2 = torch.randn(6, BATCH, WIDTH, dtype=torch.float64)
    head = CosinePredictionHead(weight=0.5)

    def minus_cosine(p, t):
        return 1 - torch.cosine_similarity(p, t).mean()

    expected = (minus_cosine(p1, t2) + minus_cosine(p2, t1)) / 2
    for target in ((t1, t2), torch.stack([t1, t2])):
        torch.testing.assert_close(head(z1, z2, predicted=[p1, p2], target=target), expected)
    torch.testing.assert_close(head(z1, z2, target=(t1, t2)), (minus_cosine(z1, t2) + minus_cosine(z2, t1)) / 2)
    torch.testing.assert_close(head(z1, target=t2), minus_cosine(z1, t2))  # one view and one target are two views
    one_target = (minus_cosine(z2, t1) + minus_cosine(p1, t1)) / 2  # of the first view; two others predict it
    torch.testing.assert_close(head(z1, z2, p1, target=t1), one_target)


def test_bad_input():
    head, z = KernelMMDHead(LegendreKernel((1.0, 1.0))), torch.randn(4, 6)
    for views, words in (
        ((), 'the views are none'),
        ((z, z[:3]), r'the views are \(4, 6\) torch.float32, \(3, 6\)'),
        ((z, z[:, :3]), r'\(4, 3\)'),
        ((z[0], z[1]), r'each a \(B, q\) matrix'),
        ((torch.stack([z, z]),), r'called as head\(\*z\)'),
        ((torch.randn(4, 6, 2, 2), torch.randn(4, 6, 2, 2)), r'flattened: z.flatten\(1\)'),
        ((z, z.long()), 'floating point'),
        ((z, None), 'NoneType'),
        (([z, z],), 'list'),
    ):
        with pytest.raises(ValueError, match=words):
            head(*views)
    with pytest.raises(ValueError, match=r'predicted holds 1 of shape \(4, 6\), the views are 2 of shape'):
        head(z, z, predicted=z)
    with pytest.raises(ValueError, match=r'target holds 2 of shape \(3, 6\)'):
        head(z, z, target=(z[:3], z[:3]))
    with pytest.raises(ValueError, match='target holds 3 of shape'):
        head(z, z, target=(z, z, z))
    with pytest.raises(ValueError, match=r'sample_index has shape \(3,\)'):
        head(z, z, sample_index=torch.arange(3))


def test_a_head_that_remembers_images_asks_which_they_are():
    view = torch.randn(BATCH, WIDTH).double()
    for head in (build('ClusterHead'), SumHead(dict(clusters=build('ClusterHead')))):
        with pytest.raises(ValueError, match='sample_index=index'):
            head(view, view)


@pytest.mark.parametrize('name', registered())
def test_a_width_that_is_needed_and_not_given(name):
    factory = registered()[name]
    arguments = dict(NEEDED.get(name, {}))
    if name == 'InfoNCEHead':
        arguments = dict(negatives='queue', queue=dict(type='FeatureQueue', length=32))
    if 'in_dim' in inspect.signature(factory).parameters:
        with pytest.raises(ValueError, match='in_dim is None, .*needs the width q .*in_dim=q'):
            factory(**arguments)


@pytest.mark.parametrize(
    'name',
    [
        'ClusterHead',
        'LogDetHead',
        'MutualInformationHead',
        'PredictiveCodingHead',
        'QuadraticMemoryHead',
        'SinkhornCodesHead',
        'SumHead',
    ],
)
def test_embeddings_of_another_width(name):
    with pytest.raises(ValueError, match=r'made for embeddings of width 6, got \(16, 8\): make it with in_dim=8'):
        build(name)(*torch.randn(3, BATCH, 8).double(), sample_index=torch.arange(BATCH))


def stateful() -> list[Head]:
    return [
        InfoNCEHead(negatives='queue', queue=FeatureQueue(length=2 * BATCH, dim=WIDTH, views=2)).double(),
        build('SinkhornCodesHead'),
        build('ClusterHead'),
        WhiteningHead(sub_batch_size=BATCH),
        SlicedHead(num_slices=4),
        build('SumHead'),
        build('QuadraticMemoryHead'),
        LogDetHead(in_dim=WIDTH).double(),
    ]


@pytest.mark.parametrize('head', stateful(), ids=lambda head: type(head).__name__)
def test_a_forgotten_commit_is_said_once(head):
    z = torch.randn(2, BATCH, WIDTH).double()

    def call(times):
        for _ in range(times):
            head(*z, sample_index=torch.arange(BATCH))

    with warnings.catch_warnings():
        warnings.simplefilter('error')
        call(PATIENCE)  # as far as accumulation may go
        head.commit()
        call(PATIENCE)
        with torch.no_grad():  # an evaluation
            call(1)
    with pytest.warns(UserWarning, match=r'head.commit\(\) after each optimizer.step\(\)') as said:
        call(3)
    assert len(said) == 1


def test_heads_without_state_need_no_commit():
    z = torch.randn(2, BATCH, WIDTH).double()
    head = VarianceCovarianceHead()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for _ in range(PATIENCE + 2):
            head(*z)


def test_commit_keeps_prototypes_on_the_sphere():
    head, z = SinkhornCodesHead(num_prototypes=6, in_dim=WIDTH).double(), torch.randn(2, BATCH, WIDTH).double()
    optimizer = torch.optim.SGD(head.parameters(), lr=5.0)
    for _ in range(3):
        head(*z).backward()
        optimizer.step()
        head.commit()
    torch.testing.assert_close(head.prototypes.weight.norm(dim=1), torch.ones(6).double())


DIRECTIONS = dict(
    SinkhornCodesHead=dict(),
    WhiteningHead=dict(),
    MutualInformationHead=dict(critic=dict(type='SeparableCritic', dims=(), normalize=True)),
)


@pytest.mark.parametrize('name', DIRECTIONS)
def test_rows_without_a_direction_are_no_gain(name):
    """Finite, without a gradient for rows of zeros, and never better than a cloud that is spread out and agrees."""
    head = build(name, **DIRECTIONS[name])
    good = torch.randn(64, WIDTH, dtype=torch.float64)
    best = head(good, good + 0.1 * torch.randn_like(good)).item()
    for point in (0.0, 1e-200, 0.3):
        z = torch.full((64, WIDTH), point, dtype=torch.float64).requires_grad_()
        loss = head(z, z + 0)
        loss.backward()
        assert best < loss.item() < torch.inf
        assert z.grad.isfinite().all()
        assert point == 0.3 or not z.grad.any()


@pytest.mark.parametrize(
    'name, options',
    [
        ('PredictiveCodingHead', {}),
        *(('WhiteningHead', dict(distance='squared', method=m)) for m in ('cholesky', 'zca', 'pca')),
        ('KernelMMDHead', {}),
        ('VarianceCovarianceHead', {}),
        ('CrossCorrelationHead', {}),
        ('InfoNCEHead', {}),
        ('SlicedHead', {}),
    ],
)
def test_a_gradient_made_by_hand_passes_for_no_constant(name, options):
    z = torch.randn(3, BATCH, WIDTH, dtype=torch.float64, requires_grad=True)
    loss = build(name, **options)(*z)
    with pytest.raises(RuntimeError, match='no second derivative'):
        torch.autograd.grad(loss, z, create_graph=True)


def queue_head() -> InfoNCEHead:
    return InfoNCEHead(negatives='queue', queue=FeatureQueue(length=BATCH, dim=WIDTH, views=3)).double()


def test_a_queue_of_rows_without_a_direction_is_no_gain():
    head, zeros = queue_head(), torch.zeros(3, BATCH, WIDTH, dtype=torch.float64)
    for _ in range(2):
        loss = head(*zeros)
        head.commit()
    torch.testing.assert_close(loss, torch.tensor(BATCH + 1.0).double().log())


@pytest.mark.parametrize('name', ['queue', 'SinkhornCodesHead', 'ClusterHead'])
def test_an_evaluation_between_loss_and_commit_leaves_nothing_behind(name):
    first, other = torch.randn(2, 3, BATCH, WIDTH, dtype=torch.float64)
    index, states = torch.arange(BATCH), []
    for evaluate in (False, True):
        head = queue_head() if name == 'queue' else build(name)
        if name == 'SinkhornCodesHead':
            head = build(name, queue_length=BATCH, queue_views=3)
            head.queue.enable()
        head(*first, sample_index=index)
        if evaluate:
            head.eval()(*other, sample_index=index)
            with torch.no_grad():
                head.train()(*other, sample_index=index)
        head.commit()
        states.append({**head.state_dict(), **dict(head.named_buffers())})
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value)


def test_what_nobody_commits_does_not_grow_without_end():
    head, views = build('ClusterHead'), torch.randn(3, BATCH, WIDTH, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for _ in range(PATIENCE + 10):
            head(*views, sample_index=torch.arange(BATCH))
    assert len(head._staged) == PATIENCE


@pytest.mark.parametrize('name', registered())
def test_no_step_reads_the_device(name):
    head, index = build(name).float(), torch.arange(BATCH)
    encoder = nn.Linear(8, WIDTH)
    with HostReads([index, *encoder.parameters(), *head.parameters(), *head.buffers()]) as meter:
        for step in range(3):
            meter.counting = step == 2
            head(*encoder(torch.randn(3, BATCH, 8)), sample_index=index).backward()
            head.commit()
    assert not meter.reads


@pytest.mark.gpu
@pytest.mark.parametrize('name', registered())
def test_no_step_waits_for_a_gpu(name):
    head = build(name).float().to('cuda')
    index = torch.arange(BATCH, device='cuda')
    for step in range(3):
        z = torch.randn(3, BATCH, WIDTH, device='cuda', requires_grad=True)
        torch.cuda.set_sync_debug_mode('error' if step == 2 else 'default')
        try:
            head(*z, sample_index=index).backward()
            head.commit()
        finally:
            torch.cuda.set_sync_debug_mode('default')
