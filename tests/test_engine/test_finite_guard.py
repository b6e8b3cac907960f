"""A loss or gradient that is not finite: nothing moves, nothing is read, every process ends the run at the right iteration."""

import copy
import json
from pathlib import Path

import pytest
import torch
from launches import Launches
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor
from multiprocess import run_processes
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.parallel import DistributedDataParallel

from mmkernel.cli import main
from mmkernel.engine import LARS, NonFiniteLossError, PretrainOptimWrapper, load_config, train
from mmkernel.engine.finite import non_finite_argument
from mmkernel.engine.virtual_batch import virtual_step
from mmkernel.models import Head, JointEmbedding, move
from mmkernel.registry import HOOKS, MODELS

NAN, WIDTH, BATCH = float('nan'), 6, 8


class Spoilt(torch.autograd.Function):
    """The identity, whose gradient is infinite."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float('inf')


class BatchEncoder(nn.Module):
    """Rows (B, 10) -> (B, 12) with batch statistics; ``spoil``: what is done to the output."""

    out_dim = 12

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(10, 12), nn.BatchNorm1d(12), nn.Tanh())
        self.spoil = None

    def forward(self, x):
        z = self.layers(x)
        return z if self.spoil is None else self.spoil(z)


HEADS = {
    'queue': dict(
        target=dict(type='MomentumTarget'),
        head=dict(type='InfoNCEHead', negatives='queue', queue=dict(type='FeatureQueue', length=4 * BATCH, views=2)),
    ),
    'prototypes': dict(head=dict(type='SinkhornCodesHead', num_prototypes=5, queue_length=2 * BATCH)),
    'memory': dict(head=dict(type='ClusterHead', num_clusters=(3, 2))),
    'kernel': dict(head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0)))),
}
OPTIMIZERS = {
    'LARS': lambda p: LARS(p, lr=0.3, weight_decay=0.1),
    'SGD': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    'Adam': lambda p: torch.optim.Adam(p, lr=0.1),
    'AdamW': lambda p: torch.optim.AdamW(p, lr=0.1),
    'RMSprop': lambda p: torch.optim.RMSprop(p, lr=0.1),  # knows no flag
}


def build(optimizer='LARS', head='kernel', target=None, **settings):
    torch.manual_seed(0)
    parts = HEADS[head] if isinstance(head, str) else dict(head=head)
    neck = dict(type='MLPNeck', dims=(WIDTH,), norm=None)
    model = JointEmbedding(BatchEncoder(), neck, data_preprocessor=BaseDataPreprocessor(), **parts)
    if getattr(model.head, 'queue', None) is not None:
        model.head.queue.enable()
    if hasattr(model.head, 'pseudo'):
        model.head.prepare(BATCH)
        for h, K in enumerate(model.head.num_clusters):
            model.head.pseudo.set(h, torch.arange(BATCH), torch.arange(BATCH) % K)
    model.init_weights()
    parameters = [p for p in model.parameters() if p.requires_grad]
    return model.train(), PretrainOptimWrapper(OPTIMIZERS[optimizer](parameters), **settings)


def batch(step, bad=False):
    x = torch.randn(2, BATCH, 10, generator=torch.Generator().manual_seed(step))
    if bad:
        x[0, 3, 1] = NAN
    return dict(inputs=list(x), sample_index=torch.arange(BATCH))


def after_step(net, wrapper, momentum=0.9):
    """What the hooks do after an attempt."""
    if wrapper.stepped:
        net.commit(real=wrapper.real)
        if hasattr(net.target, 'update'):
            net.target.update(momentum, wrapper.real)


def train_step(net, wrapper, step, bad=False):
    net.train_step(batch(step, bad), wrapper)
    after_step(net, wrapper)


def everything(net, wrapper):
    """Copies of all that a step changes: weights, averages, queue, prototypes, memory, statistics, optimizer. Host counts apart."""
    counters = {f'{name}.{c}'.lstrip('.') for name, part in net.named_modules() for c in getattr(part, 'counters', ())}
    state = {name: x for name, x in net.state_dict().items() if name not in counters}
    state |= {f'buffer {name}': x for name, x in net.named_buffers()}
    for i, entry in wrapper.optimizer.state_dict()['state'].items():
        state |= {f'optimizer {i}.{name}': x for name, x in entry.items() if torch.is_tensor(x)}
    return copy.deepcopy(state)


def assert_kept(before, now):
    assert before.keys() == now.keys()
    moved = [name for name in before if not torch.equal(before[name], now[name])]
    assert not moved


def spoil_gradient(net):
    net.backbone.spoil = Spoilt.apply


@pytest.mark.parametrize('how', ['loss', 'gradient'])
@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('head', HEADS)
def test_nothing_moves_from_the_first_bad_iteration_on(head, optimizer, how):
    net, wrapper = build(optimizer, head)
    for step in range(3):
        train_step(net, wrapper, step)
    wrapper.check()
    before = everything(net, wrapper)
    if how == 'gradient':
        spoil_gradient(net)
    train_step(net, wrapper, 3, bad=how == 'loss')
    assert_kept(before, everything(net, wrapper))
    net.backbone.spoil = None
    train_step(net, wrapper, 4)  # this one is finite, and comes too late
    assert_kept(before, everything(net, wrapper))
    words = 'The loss of iteration 3 is nan' if how == 'loss' else 'The gradient of iteration 3 has NaN'
    with pytest.raises(NonFiniteLossError, match=words):
        wrapper.check()


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_a_first_step_that_is_skipped_leaves_an_optimizer_that_works(optimizer):
    """Float16's first scale is often too large. Momentum of a fused SGD would be memory without content."""
    trained = []
    for skipped in (True, False):
        net, wrapper = build(optimizer)
        wrapper.scaler = torch.amp.GradScaler('cpu', init_scale=4.0)
        if skipped:
            spoil_gradient(net)
            train_step(net, wrapper, 9)
            net.backbone.spoil = None
            assert not wrapper.real
        for step in range(2):
            train_step(net, wrapper, step)
        trained.append({name: p.detach() for name, p in net.named_parameters()})
    for name, p in trained[0].items():
        torch.testing.assert_close(p, trained[1][name], msg=lambda m, n=name: f'{n}: {m}')


@pytest.mark.parametrize('head', HEADS)
def test_an_overflow_under_loss_scaling_skips_its_step_alone(head):
    net, wrapper = build(head=head)
    wrapper.scaler = torch.amp.GradScaler('cpu', init_scale=1024.0)
    for step in range(2):
        train_step(net, wrapper, step)
    before = everything(net, wrapper)
    spoil_gradient(net)
    train_step(net, wrapper, 2)
    assert wrapper.stepped
    assert not wrapper.real
    assert_kept(before, everything(net, wrapper))
    assert wrapper.scaler.get_scale() == 512.0
    net.backbone.spoil = None
    train_step(net, wrapper, 3)
    assert wrapper.real
    assert not torch.equal(before['backbone.layers.0.weight'], net.backbone.layers[0].weight)
    assert int(net.backbone.layers[1].num_batches_tracked) > int(before['backbone.layers.1.num_batches_tracked'])
    wrapper.check()
    train_step(net, wrapper, 4, bad=True)  # a loss is final all the same
    with pytest.raises(NonFiniteLossError, match='The loss of iteration 4 is nan'):
        wrapper.check()


def test_gradients_that_overflow_at_every_scale_end_the_run():
    """The scale would fall to 0, where no gradient is finite ever again, and nothing would say so."""
    net, wrapper = build()
    wrapper.scaler = torch.amp.GradScaler('cpu', init_scale=2.0**-12)
    train_step(net, wrapper, 0)
    before = everything(net, wrapper)
    spoil_gradient(net)
    for step in (1, 2):  # at 2^-12 and 2^-13, above 1e-4
        train_step(net, wrapper, step)
    wrapper.check()
    for step in (3, 4):
        train_step(net, wrapper, step)
    assert_kept(before, everything(net, wrapper))
    with pytest.raises(NonFiniteLossError, match='The gradient of iteration 3 has NaN'):
        wrapper.check()


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
def test_an_attempt_without_gradients_is_judged_by_its_own_loss(optimizer):
    net, wrapper = build(optimizer)
    train_step(net, wrapper, 0)
    wrapper.frozen = list(net.parameters())
    train_step(net, wrapper, 1)
    assert wrapper.real
    before = everything(net, wrapper)
    train_step(net, wrapper, 2, bad=True)
    assert not wrapper.real
    assert_kept(before, everything(net, wrapper))


def test_running_statistics_inside_a_head_stay_too():
    class NormedHead(LocalHead):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(WIDTH)

        def loss(self, embeddings):
            return {'loss_local': (self.norm(embeddings.predicted[0]) - embeddings.target[1]).square().mean()}

    net, wrapper = build()
    net.head = NormedHead().train()
    train_step(net, wrapper, 0)
    before = everything(net, wrapper)
    assert before['head.norm.num_batches_tracked'] == 1
    train_step(net, wrapper, 1, bad=True)
    assert_kept(before, everything(net, wrapper))


def test_buffers_that_the_forward_pass_replaces_and_that_nothing_writes_into():
    class Collecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
            for name, x in dict(seen=torch.zeros(1), gone=torch.zeros(2), one=torch.ones(1).expand(5)).items():
                self.register_buffer(name, x)

        def forward(self, x):
            self.seen, self.gone = torch.cat([self.seen, x[:1, 0].detach()]), None
            return self.layers(x).square().mean()

    model = Collecting()
    wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    for x in (torch.randn(4, 3), torch.full((4, 3), NAN)):
        mean = model.layers[1].running_mean.clone()
        with wrapper.optim_context(model):
            loss = model(x)
        wrapper.update_params(loss)
    assert len(model.seen) == 3
    assert model.gone is None
    assert model.one.tolist() == [1.0] * 5
    assert torch.equal(model.layers[1].running_mean, mean)
    assert mean.any()


@pytest.mark.parametrize('losses', [dict(value=torch.ones(())), dict(loss_local=torch.ones(()))])
def test_a_head_without_a_loss_is_told_what_to_return(losses):
    net, wrapper = build(head=dict(type='LocalHead'))
    net.head.loss = lambda embeddings: losses
    with pytest.raises(ValueError, match='There is no loss to train by.*a tensor with a gradient'):
        train_step(net, wrapper, 0)


def test_buffers_that_have_no_shape_yet():
    model = nn.Sequential(nn.Linear(3, 2), nn.LazyBatchNorm1d())
    wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
    for x in (torch.randn(4, 3), torch.full((4, 3), NAN)):
        mean = model[1].running_mean
        with wrapper.optim_context(model):
            loss = model(x).square().mean()
        wrapper.update_params(loss)
        assert model[1].running_mean.isfinite().all()
    assert mean.any()
    assert not wrapper.real


def test_what_fails_after_the_first_failure_names_the_first():
    net, wrapper = build()
    told = []
    wrapper.on_non_finite.append(lambda loss, iteration, alone: told.append(iteration) or '')
    for step in range(3):
        train_step(net, wrapper, step, bad=step == 1)
    net.backbone.spoil = lambda z: (_ for _ in ()).throw(ValueError('refused'))
    net.backbone.layers[0].weight.data[0] = NAN
    words = 'Iteration 3 has no finite loss.*refused The first that was not finite is iteration 1, with a loss of nan'
    with pytest.raises(NonFiniteLossError, match=words):
        train_step(net, wrapper, 3)
    assert told == [1]


@pytest.mark.parametrize('how', ['loss', 'gradient'])
def test_a_bad_micro_batch_spoils_its_window_alone(how):
    net, wrapper = build(head='queue', accumulative_counts=3)
    for step in range(3):
        train_step(net, wrapper, step)
    before = everything(net, wrapper)
    train_step(net, wrapper, 3)
    if how == 'gradient':
        spoil_gradient(net)
    train_step(net, wrapper, 4, bad=how == 'loss')
    net.backbone.spoil = None
    train_step(net, wrapper, 5)
    assert wrapper.stepped
    assert_kept(before, everything(net, wrapper))
    first = '4 is nan' if how == 'loss' else '5 has NaN'  # a gradient is known where its window closes
    with pytest.raises(NonFiniteLossError, match=f'of iteration {first}'):
        wrapper.check()


def test_a_check_inside_a_window_puts_statistics_back():
    net, wrapper = build(accumulative_counts=3)
    before = everything(net, wrapper)
    train_step(net, wrapper, 0, bad=True)
    with pytest.raises(NonFiniteLossError, match='iteration 0 is nan'):
        wrapper.check()
    assert_kept(before, everything(net, wrapper))


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('how', ['loss', 'gradient'])
def test_a_virtual_batch(head, how):
    net, wrapper = build(head=head)

    def step(n, bad=False):
        parts = [{k: [x[rows] for x in v] if k == 'inputs' else v[rows] for k, v in batch(n, bad).items()}
                 for rows in torch.arange(BATCH).split(4)]  # fmt: skip
        virtual_step(net, parts, wrapper)
        after_step(net, wrapper)

    for n in range(2):
        step(n)
    before = everything(net, wrapper)
    if how == 'gradient':
        spoil_gradient(net)
    step(2, bad=how == 'loss')
    assert_kept(before, everything(net, wrapper))
    net.backbone.spoil = None
    step(3)
    assert_kept(before, everything(net, wrapper))
    with pytest.raises(NonFiniteLossError, match='of iteration 2 (is nan|has NaN)'):
        wrapper.check()


@MODELS.register_module(force=True)
class LocalHead(Head):
    """mean (p - t)^2 of this process's rows: NaN in one process is NaN nowhere else until gradients are exchanged."""

    def loss(self, embeddings):
        return {'loss_local': (embeddings.predicted[0] - embeddings.target[1]).square().mean()}


def one_of_two(rank, world_size, how, accumulation):
    net, wrapper = build('SGD', dict(type='LocalHead'), accumulative_counts=accumulation)
    model = DistributedDataParallel(net, forward_sync_buffers=False)
    asked = []
    wrapper.on_non_finite.append(lambda loss, iteration, alone: asked.append(iteration) or '')

    def step(n, bad=False):
        with wrapper.optim_context(model):
            data = batch(n + 10 * rank, bad)
            losses = model(data['inputs'], data['sample_index'])
        wrapper.update_params(losses['loss_local'])
        after_step(net, wrapper)

    for n in range(2 * accumulation):
        step(n)
    wrapper.check()
    before = everything(net, wrapper)
    if how == 'gradient' and rank == 1:
        spoil_gradient(net)
    for n in range(2 * accumulation, 3 * accumulation):
        step(n, bad=how == 'loss' and rank == 1 and n == 2 * accumulation)
    net.backbone.spoil = None
    for n in range(accumulation):
        step(n)
    now = everything(net, wrapper)
    try:
        wrapper.check()
    except NonFiniteLossError as error:
        return str(error), asked, [name for name in before if not torch.equal(before[name], now[name])]
    return 'no error', asked, []


@pytest.mark.parametrize('how, accumulation, iteration', [('loss', 1, 2), ('gradient', 1, 2), ('loss', 2, 4)])
def test_one_process_of_two(how, accumulation, iteration):
    for message, asked, moved in run_processes(one_of_two, 2, how, accumulation):
        assert not moved
        assert asked == [iteration]
        what = (
            f'The loss of iteration {iteration} is nan' if how == 'loss' else f'The gradient of iteration {iteration}'
        )
        assert message.startswith(what)


@pytest.mark.parametrize('head', HEADS)
@pytest.mark.parametrize('settings', [{}, dict(clip_grad=dict(type='value', clip_value=1.0))], ids=['plain', 'clipped'])
def test_a_step_reads_nothing(head, settings):
    net, wrapper = build(head=head, **settings)
    train_step(net, wrapper, 0)
    with wrapper.optim_context(net):
        losses = net(**batch(1))
    loss, _ = net.parse_losses(losses)
    with Launches() as launches:
        wrapper.update_params(loss)
        after_step(net, wrapper)
    assert launches.host_reads == 0, launches


def test_what_the_flag_costs():
    """Kernels beside those of backward and of the optimizer, however many parameters and buffers there are."""
    counts = []
    for depth in (1, 12):
        torch.manual_seed(0)
        layers = [part for _ in range(depth) for part in (nn.Linear(4, 4), nn.BatchNorm1d(4))]
        model, total = nn.Sequential(*layers), 0
        wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        for _ in range(2):
            with Launches() as before, wrapper.optim_context(model):
                pass
            loss = model(torch.randn(8, 4)).square().mean()
            loss.backward(retain_graph=True)
            model.zero_grad()
            with Launches() as backward:
                loss.backward(retain_graph=True)
            model.zero_grad()
            with Launches() as step:
                wrapper.update_params(loss)
            total = before.total + step.total - backward.total
        counts.append(total)
    assert counts[0] == counts[1] <= 50, counts


def test_move_keeps_bits_beside_nan():
    buffer = torch.tensor([0.0, -0.0, 1.0])
    move(buffer, torch.full((3,), NAN), torch.tensor(False))
    assert buffer.tolist() == [0.0, -0.0, 1.0]
    assert torch.signbit(buffer).tolist() == [False, True, False]
    move(buffer, torch.ones(3), torch.tensor(True))
    assert buffer.tolist() == [1.0] * 3


@pytest.mark.parametrize('kind', ['SGD', 'Adam', 'AdamW'])
def test_a_checkpoint_from_before_fusing(kind):
    """Its groups say fused=None: the count of steps must follow what this optimizer is."""

    def problem(**settings):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return model, PretrainOptimWrapper(getattr(torch.optim, kind)(model.parameters(), lr=0.1, **settings))

    extra = dict(momentum=0.9) if kind == 'SGD' else {}
    (old, unfused), (new, fused) = problem(foreach=False, fused=False, **extra), problem(**extra)
    assert (unfused.obeys_flag, fused.obeys_flag) == (False, True)
    unfused.update_params(old(torch.ones(1, 3)).square().sum())
    state = copy.deepcopy(unfused.state_dict())
    for group in state['param_groups']:
        group.update(fused=None, foreach=None)
    fused.load_state_dict(state)
    new.load_state_dict(old.state_dict())
    assert fused.param_groups[0]['fused'] is True
    for model, wrapper in ((old, unfused), (new, fused)):
        wrapper.update_params(model(torch.full((1, 3), 2.0)).square().sum())
    torch.testing.assert_close(new.weight, old.weight)


def test_groups_of_which_one_is_not_fused():
    """torch says of the whole optimizer that it knows the flag, and then refuses it."""
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    wrapper = PretrainOptimWrapper(
        torch.optim.SGD([dict(params=[a]), dict(params=[b], fused=False)], lr=0.1, fused=True)
    )
    assert not wrapper.obeys_flag
    wrapper.update_params((a * b).sum())
    wrapper.update_params((a * b).sum() * NAN)
    assert a.tolist() == b.tolist() == [pytest.approx(0.9)] * 2


@pytest.mark.parametrize('settings', [dict(foreach=True), dict(fused=False), dict(momentum=0.9, dampening=0.5)])
def test_what_the_config_says_of_its_optimizer_stays(settings, caplog):
    p = nn.Parameter(torch.ones(2, 2))
    optimizer = torch.optim.SGD([p], lr=0.1, **settings)
    wrapper = PretrainOptimWrapper(optimizer)
    assert not wrapper.obeys_flag
    assert {name: optimizer.param_groups[0][name] for name in settings} == settings
    wrapper.update_params(p.sum() * NAN)
    assert torch.equal(p.detach(), torch.ones(2, 2))


def run(folder, bad_iteration, **options):
    cfg = load_config(
        Path(__file__).parent / 'tiny_config.py', {'log_level': 'ERROR', 'model.bad_iteration': bad_iteration}
    )
    cfg.work_dir = str(folder)
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.parametrize('interval, seen', [(50, 8), (3, 6), (1, 5)])
def test_a_run_ends_at_the_interval_with_the_images_of_the_bad_iteration(tmp_path, interval, seen):
    """Iteration 4 of an epoch of 8 is the bad one; the host looks every ``interval`` iterations and at the end of the epoch."""
    batches, attempts = [], []

    class Watch(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            batches.append(data_batch['sample_index'].tolist())

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            attempts.append(everything_of(runner))

    def everything_of(runner):
        return {name: x.clone() for name, x in runner.model.state_dict().items()}

    HOOKS.register_module(module=Watch, name='WatchGuard', force=True)
    cfg = run(tmp_path, 5, **{'default_hooks.guard.interval': interval})
    cfg.custom_hooks = [dict(type='WatchGuard', priority='VERY_LOW')]
    with pytest.raises(NonFiniteLossError, match='The loss of iteration 4 is nan.*Epoch 0;.*no checkpoint yet'):
        train(cfg)
    assert len(batches) == seen
    for state in attempts[4:]:
        assert_kept(attempts[3], state)
    record = json.loads(next(tmp_path.glob('*/non_finite_rank0.json')).read_text())
    assert (record['iteration'], record['epoch'], record['loss']) == (4, 0, 'nan')
    assert record['sample_index'] == batches[4]
    assert record['sample_index_before'] == batches[3]
    assert (record['seed'], record['world_size'], record['checkpoint']) == (0, 1, None)
    assert not list(tmp_path.glob('*.pth'))


def test_a_checkpoint_inside_an_epoch_asks_first(tmp_path):
    class Save(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if batch_idx == 5:
                runner.save_checkpoint(runner.work_dir, 'now.pth')

    HOOKS.register_module(module=Save, name='SaveGuard', force=True)
    cfg = run(tmp_path, 4)
    cfg.custom_hooks = [dict(type='SaveGuard')]
    with pytest.raises(NonFiniteLossError, match='iteration 3 is nan'):
        train(cfg)
    assert not list(tmp_path.glob('*.pth'))


def test_the_command_line_ends_with_the_message_alone(tmp_path):
    words = [str(Path(__file__).parent / 'tiny_config.py'), '--work-dir', str(tmp_path), '--cfg-options']
    with pytest.raises(SystemExit, match='^NonFiniteLossError: The loss of iteration 4 is nan.*no checkpoint yet'):
        main(['train', *words, 'model.bad_iteration=5', 'log_level=ERROR'])


def test_a_run_without_guard_and_checkpoints_does_not_end_as_if_all_were_well(tmp_path):
    cfg = run(tmp_path, 9, **{'train_cfg.max_epochs': 2})
    cfg.default_hooks.guard = cfg.default_hooks.checkpoint = None
    with pytest.raises(NonFiniteLossError, match='The loss of iteration 8 is nan'):
        train(cfg)


def test_an_error_of_the_compiler_is_looked_through_although_its_tensors_have_no_values():
    def compiled(x):
        raise RuntimeError('g++ ended with 1')

    def step(z):
        with FakeTensorMode():
            compiled(torch.ones(2))

    for z, said in ((torch.ones(2), None), (torch.full((2,), torch.nan), ' in z of step')):
        with pytest.raises(RuntimeError) as error:
            step(z)
        assert non_finite_argument(error.value) == said
