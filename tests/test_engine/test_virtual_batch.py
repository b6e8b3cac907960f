"""A virtual batch is the big batch: same loss, same parameters after steps, same memory of the head; two passes agree."""

import copy
import sys
import weakref
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from multiprocess import run_processes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmkernel.engine import ConfigError, PretrainOptimWrapper, load_config, train
from mmkernel.engine.learning_rates import micro_batches
from mmkernel.engine.loop import MicroBatches, VirtualBatches
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.models import JointEmbedding
from mmkernel.planning.dry_run import dry_run
from mmkernel.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[1] / 'test_models'))
from test_heads_distributed import BATCH, HEADS, VIEWS, WIDTH, data  # noqa: E402

KERNEL = dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0)))
PARTS = {
    'momentum target': dict(
        head=dict(type='CosinePredictionHead'),
        predictor=dict(type='MLPNeck', dims=(8, WIDTH), norm=None),
        target=dict(type='MomentumTarget'),
    ),
    'stopped gradient': dict(
        head=KERNEL, predictor=dict(type='MLPNeck', dims=(8, WIDTH), norm=None), target=dict(type='StopGradientTarget')
    ),
    'predictor': dict(head=KERNEL, predictor=dict(type='MLPNeck', dims=(8, WIDTH), norm=None)),
    'some targets': dict(head=KERNEL, target_views=(0,)),
}


@MODELS.register_module(force=True)
class RowsEncoder(nn.Module):
    """Rows (B, 10) -> (B, 20); with ``norm`` batch statistics, with ``dropout`` random draws."""

    out_dim = 20

    def __init__(self, norm=False, dropout=0.0):
        super().__init__()
        layers = [nn.Linear(10, 20), nn.BatchNorm1d(20) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def build(head, backbone=None, **parts):
    torch.manual_seed(0)
    neck = dict(type='MLPNeck', dims=(WIDTH,), norm=None)
    model = JointEmbedding(
        dict(type='RowsEncoder', **(backbone or {})), neck, head, data_preprocessor=BaseDataPreprocessor(), **parts
    ).double()
    if getattr(model.head, 'queue', None) is not None:
        model.head.queue.enable()
    if hasattr(model.head, 'pseudo'):
        model.head.prepare(BATCH)
        for h, K in enumerate(model.head.num_clusters):
            model.head.pseudo.set(h, torch.arange(BATCH - 3), torch.arange(BATCH - 3) % K)
    model.init_weights()
    return model.train()


def batch_of(x, rows):
    return dict(inputs=[view[rows] for view in x], sample_index=torch.arange(x.shape[1])[rows])


def two_steps(model, net, step, rank=0, world_size=1):
    """Losses and everything the model is after two steps, the head remembering what it staged."""
    parameters = [p for p in net.parameters() if p.requires_grad]
    wrapper = PretrainOptimWrapper(torch.optim.SGD(parameters, lr=0.05))
    logs = []
    for seed in (1, 2):
        rows = torch.arange(BATCH).chunk(world_size)[rank]
        logs.append(step(model, data(seed), rows, wrapper))
        assert wrapper.stepped
        net.commit()
    return [{k: v.detach().clone() for k, v in log.items()} for log in logs], {
        k: v.detach().clone().double() for k, v in net.state_dict().items()
    }


def at_once(model, x, rows, wrapper):
    return model.train_step(batch_of(x, rows), wrapper)


def in_parts(model, x, rows, wrapper, size=4):
    return virtual_step(model, [batch_of(x, part) for part in rows.split(size)], wrapper)


def assert_same(ours, expected, where=''):
    for a, b in zip(ours[0], expected[0], strict=True):
        for name in b:
            torch.testing.assert_close(
                a[name], b[name], rtol=1e-11, atol=1e-12, msg=lambda m, n=name: f'{where} {n}: {m}'
            )
    for name, value in expected[1].items():
        scale = max(float(value.abs().max()), 1.0)
        assert float((ours[1][name] - value).abs().max()) <= 1e-12 * scale, (where, name)


@pytest.mark.parametrize('head', HEADS, ids=lambda head: head['type'])
def test_every_head(head, device):
    models = build(head).to(device), build(head).to(device)
    assert_same(*(two_steps(m, m, step) for m, step in zip(models, (in_parts, at_once), strict=True)), where=str(head))


@pytest.mark.parametrize('parts', PARTS.values(), ids=PARTS.keys())
def test_predictors_and_targets(parts, device):
    models = build(**parts).to(device), build(**parts).to(device)
    assert_same(*(two_steps(m, m, step) for m, step in zip(models, (in_parts, at_once), strict=True)))


def on_rank(rank, world_size, heads, find_unused):
    results = []
    for head in heads:
        net = build(head)
        model = DistributedStep(net, find_unused_parameters=find_unused)
        results.append(two_steps(model, net, in_parts, rank, world_size))
    return results


class DistributedStep(DistributedDataParallel):
    """As MMDistributedDataParallel, which ``unwrap`` knows, for a model on the CPU."""


WITH_PARAMETERS = [head for head in HEADS if head['type'] in ('SinkhornCodesHead', 'ClusterHead')]


@pytest.mark.parametrize('heads, find_unused', [(HEADS, False), (WITH_PARAMETERS, True)], ids=['all', 'find unused'])
def test_two_processes(heads, find_unused):
    expected = []
    for head in heads:
        model = build(head)
        expected.append(two_steps(model, model, at_once))
    for rank_results in run_processes(on_rank, 2, heads, find_unused):
        for head, ours, union in zip(heads, rank_results, expected, strict=True):
            assert_same(ours, union, str(head))


def test_second_pass_repeats_the_first_and_statistics_move_once():
    parts = dict(backbone=dict(norm=True, dropout=0.5), **PARTS['momentum target'])
    model = build(**parts)
    once = copy.deepcopy(model)
    seen = []
    model.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    torch.manual_seed(5)
    x = data(1)
    step = torch.arange(BATCH).split(4)
    wrapper = PretrainOptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1))
    virtual_step(model, [batch_of(x, rows) for rows in step], wrapper)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert len(first) == 4 * VIEWS
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[VIEWS])
    after = torch.get_rng_state()
    torch.manual_seed(5)
    with torch.no_grad():
        for rows in step:
            once.embeddings(**batch_of(x, rows))
    for part in ('backbone', 'target'):  # running statistics are those of one pass
        for ours, expected in zip(getattr(model, part).buffers(), getattr(once, part).buffers(), strict=True):
            torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    assert torch.equal(after, torch.get_rng_state())  # as if nothing had been drawn twice


def test_second_pass_shuffles_channels_as_the_first():
    model = build(KERNEL)
    model.neck = MODELS.build(
        dict(type='MLPNeck', in_dim=20, dims=(WIDTH,), last_norm=dict(type='ShuffledDBN', groups=5))
    )
    model.neck.double()
    seen = []
    model.neck.register_forward_hook(lambda module, inputs, output: seen.append(output.detach().clone()))
    x, step = data(1), torch.arange(BATCH).split(4)
    wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    virtual_step(model, [batch_of(x, rows) for rows in step], wrapper)
    first, second = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert model.neck[-1].passes == 4 * VIEWS


class Kept:
    """A tensor that autograd saved."""

    def __init__(self, tensor):
        self.tensor = tensor


def test_no_graph_outlives_its_micro_batch():
    model, kept, alive = build(KERNEL), weakref.WeakSet(), []

    def keep(tensor):
        kept.add(saved := Kept(tensor))
        return saved

    model.backbone.register_forward_pre_hook(lambda module, inputs: alive.append(len(kept)))
    wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved.tensor):
        in_parts(model, data(1), torch.arange(BATCH), wrapper)
    assert len(alive) == 2 * 4 * VIEWS
    assert not any(alive[: 4 * VIEWS])  # the first pass saves nothing
    assert not any(alive[4 * VIEWS :: VIEWS])  # each micro-batch of the second begins with nothing saved
    assert alive[4 * VIEWS + 1]


@pytest.mark.parametrize('head', [KERNEL, dict(type='InfoNCEHead')])
def test_half_precision_passes_give_the_gradients_of_one_pass(head):
    """autocast keeps copies of the weights that were cast without a graph: the second pass must not find them."""
    losses = []
    for step in (in_parts, at_once):
        model = build(head).float()
        wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.5), precision='bfloat16')
        before = [p.detach().clone() for p in model.parameters()]
        losses.append(step(model, data(1).float(), torch.arange(BATCH), wrapper)['loss'])
        moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
        losses.append(moved)
    torch.testing.assert_close(losses[0], losses[2], rtol=2e-2, atol=1e-3)
    assert torch.cosine_similarity(losses[1], losses[3], dim=0) > 0.99


def test_a_loss_scaled_for_half_precision_is_unscaled_by_the_step():
    class Scaler:  # the part of torch.amp.GradScaler that a backward sees
        def scale(self, loss):
            return 1024.0 * loss

    gradients = []
    for scaler in (None, Scaler()):
        model = build(KERNEL)
        wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        wrapper.scaler = scaler
        wrapper.step, wrapper.zero_grad = lambda **_: None, lambda **_: None
        in_parts(model, data(1), torch.arange(BATCH), wrapper)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[1], 1024.0 * gradients[0])


def run_config(folder, **options):
    cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'log_level': 'ERROR'})
    cfg.merge_from_dict(options)
    cfg.data_preprocessor = dict(type='ViewPreprocessor')
    cfg.model = dict(
        type='JointEmbedding',
        backbone=dict(type='FlatRows'),
        neck=dict(type='MLPNeck', dims=(8,), norm=None),
        head=KERNEL,
    )
    cfg.train_cfg = dict(max_epochs=2, **options.pop('train_cfg', {}))
    cfg.work_dir = str(folder)
    return cfg


@MODELS.register_module(force=True)
class FlatRows(nn.Module):
    """Images -> rows of pixels."""

    out_dim = 64

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64))

    def forward(self, x):
        return x.flatten(1) * self.scale


def weights(runner):
    return torch.cat([p.detach().flatten() for p in runner.model.parameters()])


def test_a_run_equals_one_with_the_big_batch_and_resumes(tmp_path):
    big = train(run_config(tmp_path / 'big', **{'train_dataloader.batch_size': 16}))
    virtual = train(run_config(tmp_path / 'virtual', train_cfg=dict(virtual_batch=16)))
    torch.testing.assert_close(weights(virtual), weights(big), rtol=1e-4, atol=1e-5)
    assert len(virtual.train_dataloader) == len(big.train_dataloader) == 4
    assert virtual.optim_wrapper.param_groups[0]['initial_lr'] == big.optim_wrapper.param_groups[0]['initial_lr']
    (tmp_path / 'virtual' / 'epoch_2.pth').unlink()
    resumed = train(run_config(tmp_path / 'virtual', train_cfg=dict(virtual_batch=16)), resume=True)
    assert torch.equal(weights(resumed), weights(virtual))


def test_left_over_micro_batches_are_dropped():
    loader = torch.utils.data.DataLoader(range(17), batch_size=2, drop_last=True)
    batches = VirtualBatches(loader, 3)
    assert [[b.tolist() for b in group] for group in batches] == [
        [[0, 1], [2, 3], [4, 5]],
        [[6, 7], [8, 9], [10, 11]],
    ]
    assert (len(batches), batches.batch_size, batches.dataset) == (2, 2, range(17))


@pytest.mark.parametrize('workers', [0, 1])
def test_every_epoch_is_whole_with_persistent_workers(workers):
    loader = torch.utils.data.DataLoader(
        range(17), batch_size=2, drop_last=True, num_workers=workers, persistent_workers=bool(workers)
    )
    for _ in range(3):
        assert [int(x) for group in VirtualBatches(loader, 3) for batch in group for x in batch] == list(range(12))
    loader._iterator = None


def test_hooks_see_one_batch():
    parts = [batch_of(data(1), rows) for rows in torch.arange(BATCH).split(4)]
    joined = MicroBatches(parts)
    assert torch.equal(joined['sample_index'], torch.arange(BATCH))
    assert all(torch.equal(a, b) for a, b in zip(joined['inputs'], data(1), strict=True))
    assert joined[1] is parts[1]


def test_wrong_numbers_name_the_nearest_right_ones(tmp_path):
    assert micro_batches(4096, 256, 4) == 4
    with pytest.raises(ValueError, match='virtual_batch = 1000 .*256 x 2 = 512: use 512 or 1024'):
        micro_batches(1000, 256, 2)
    config = Path(__file__).parent / 'tiny_config.py'
    with pytest.raises(ConfigError, match='is not a multiple of batch_size x processes = 8 x 1 = 8: use 16 or 24'):
        load_config(config, {'train_cfg.virtual_batch': 20})
    with pytest.raises(ConfigError, match='remove accumulative_counts'):
        load_config(config, {'train_cfg.virtual_batch': 16, 'optim_wrapper.accumulative_counts': 2})
    with pytest.raises(ConfigError, match='virtual_batch=16x; expected .* whole numbers > 0'):
        load_config(config, {'train_cfg.virtual_batch': '16x'})
    cfg = load_config(config, {'train_cfg.virtual_batch': 16, 'log_level': 'ERROR'})
    cfg.work_dir = str(tmp_path)
    with pytest.raises(ValueError, match='TinyModel'):
        train(cfg)
    with pytest.raises(ValueError, match='drop_last=True'):
        train(run_config(tmp_path, train_cfg=dict(virtual_batch=16), **{'train_dataloader.drop_last': False}))


def test_dry_run_counts_virtual_images(capsys):
    cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'train_cfg.virtual_batch': 32})
    text = dry_run(cfg, world_size=2)
    assert '32 = 8 x 2 processes x 2 micro-batches' in text
    assert 'N x N = 32 x 32' in text
    assert '0.0375 = 0.3 x 32 / 256' in text
    with pytest.raises(ConfigError, match='8 x 3 = 24'):
        dry_run(cfg, world_size=3)


def test_a_wrapper_without_two_passes_is_refused_before_the_first_step(tmp_path):
    """mmengine's ends its accumulation itself and knows no ``backward``: a virtual batch would fail inside the first step."""
    cfg = run_config(tmp_path, train_cfg=dict(virtual_batch=16))
    cfg.optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    text = r"virtual_batch takes two passes, which OptimWrapper cannot.*optim_wrapper.type='PretrainOptimWrapper'"
    with pytest.raises(ConfigError, match=text):
        dry_run(cfg)
    with pytest.raises(ValueError, match=text):
        train(cfg)
    assert not [*tmp_path.glob('*.pth')]
    cfg.train_cfg.virtual_batch = 8  # the batch itself: one pass
    train(cfg)
