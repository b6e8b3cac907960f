"""What a dry run counts without memory is what a step on a CPU holds; and what it proposes where that is too much."""

import io
from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.registry import DefaultScope
from multiprocess import run_processes

from mmkernel.cli import main
from mmkernel.distributed import equal_rows, world_size
from mmkernel.engine import load_config
from mmkernel.engine.learning_rates import built_wrapper
from mmkernel.engine.wrapping import wrap_model
from mmkernel.models import build_model
from mmkernel.planning.bytes_per_rank import held_by_a_rank, readable, size
from mmkernel.planning.counted_step import NotCounted, count_step
from mmkernel.planning.dry_run import dry_run
from mmkernel.planning.fitting import changes, counted_with, read_bytes, what_to_change
from mmkernel.planning.live_bytes import LiveBytes
from mmkernel.planning.rehearsal import build_on_meta

CONFIGS = Path(__file__).parents[2] / 'configs'
METHODS = ['sfrik/digits_L2', 'sfrik/digits_L2_sharded', 'moco/digits_v2']
TOLERANCE = 0.03


def config(method, **options):
    return load_config(CONFIGS / f'{method}.py', {key.replace('__', '.'): value for key, value in options.items()})


FSDP = {
    'plain': {},
    'checkpointed': {'activation_checkpointing': True, 'model__batching': 'size'},
    'moving target': {'model__target': dict(type='MomentumTarget'), 'model__batching': 'view'},
}  # fmt: skip
WIDER = dict(depth=3, embed_dim=255, num_heads=3, patch_size=4)  # most of the model; 255 rows are not even


def spread_config(**options):
    options = dict(fsdp=True, model__backbone=WIDER, train_dataloader__batch_size=8) | options
    return config('sfrik/digits_vit', **options)


def live_bytes(rank, W, cfg):
    """(weights, gradients, optimizer; all at the peak of the second step; bytes of encoders that were sent) of real tensors."""
    with DefaultScope.overwrite_default_scope('mmkernel'), LiveBytes() as live, equal_rows():
        model = wrap_model(build_model(cfg).train(), cfg, distributed=W > 1)
        wrapper = built_wrapper(dict(cfg.optim_wrapper), model)
        B = cfg.train_dataloader.batch_size
        sides = [view.size for view in cfg.train_dataloader.dataset.views.values() for _ in range(view.get('count', 1))]
        for _ in range(2):
            live.peak, live.collectives = live.now, []
            views = [torch.randint(0, 256, (B, 1, side, side), dtype=torch.uint8) for side in sides]
            batch = dict(inputs=views, sample_index=torch.arange(B))
            model.train_step(batch, wrapper)
            del batch, views
    states = [x for state in wrapper.optimizer.state.values() for x in state.values() if isinstance(x, torch.Tensor)]
    trained = [p for p in model.parameters() if p.requires_grad]
    sent = Counter()
    for name, count in live.collectives:
        sent[name] += count
    return size(model.parameters()), size(trained), size(x for x in states if x.ndim), live.peak, sent


def exact(step):
    """(weights, gradients, optimizer) of a CountedStep."""
    of = {name.split()[0]: 0 for name in step.held}
    for name, count in step.held.items():
        of[name.split()[0]] += count if name.split()[0] in ('weights', 'gradients', 'optimizer,') else 0
    return of['weights'], of['gradients'], of['optimizer,']


@pytest.mark.parametrize('W', [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize('method', [METHODS[0], *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:])])
def test_a_counted_step_is_what_a_step_holds(method, W):
    found = live_bytes(0, 1, config(method)) if W == 1 else run_processes(live_bytes, W, config(method))[0]
    step = count_step(config(method), W)
    assert exact(step) == tuple(found[:3])
    assert step.peak == pytest.approx(found[3], rel=TOLERANCE)
    assert world_size() == 1
    assert not dist.is_initialized()


def test_a_storage_counts_as_large_as_it_is():
    with LiveBytes() as live:
        x, seen = torch.empty(1000), []
        for count in (0, 4000, 0):
            seen.append(live.now)
            x.untyped_storage().resize_(count)
        del x
    assert (*seen, live.now, live.peak) == (4000, 0, 4000, 0, 4000)


def live_bytes_of_each(rank, W, cfgs):
    return [live_bytes(rank, W, cfg) for cfg in cfgs]


@pytest.mark.slow
def test_of_a_spread_encoder_blocks_that_are_gathered_for_a_moment_are_counted():
    cfgs = [spread_config(**options) for options in FSDP.values()]
    for name, cfg, found in zip(FSDP, cfgs, run_processes(live_bytes_of_each, 2, cfgs)[0], strict=True):
        step = count_step(cfg, 2)
        assert exact(step) == tuple(found[:3]), name
        assert step.peak == pytest.approx(found[3], rel=TOLERANCE), name
        weights, gradients = (step.received[f'fsdp, {what} of the encoder'] for what in ('weights', 'gradients'))
        assert weights == found[4]['_allgather_base_'] // 2, name
        assert gradients == found[4]['_reduce_scatter_base_'], name  # of which the rank keeps one half


def test_of_a_spread_encoder_a_rank_has_its_rows():
    cfg, W = spread_config(), 4
    model, step = build_on_meta(cfg), count_step(cfg, W)
    rows = sum(p.nbytes // len(p) * -(-len(p) // W) for p in model.backbone.parameters())
    assert exact(step)[0] == rows + size(model.neck.parameters())
    assert held_by_a_rank(model, W, fsdp=True)[0] * 4 == exact(step)[0]  # where no step can be counted
    assert count_step(spread_config(fsdp=False), W).peak > step.peak + 2 * (size(model.backbone.parameters()) - rows)


def test_an_encoder_is_spread_in_the_proposals_where_a_run_takes_it():
    cfg = spread_config(fsdp=False)
    peak = count_step(cfg, 2).peak
    assert counted_with(cfg, 2, None, {'fsdp': True}) < peak
    assert counted_with(cfg, 2, None, {'fsdp': True, 'compile': True}) is None
    assert counted_with(cfg, 2, None, {'fsdp': True, 'optim_wrapper.precision': 'float16'}) is None
    half = spread_config(fsdp=False, optim_wrapper__precision='float16')
    (options,) = [options for options, _ in changes(half, 2) if 'fsdp' in options]
    assert options == {'fsdp': True, 'optim_wrapper.precision': 'bfloat16'}
    assert counted_with(half, 2, None, options) < peak


@pytest.mark.slow
def test_adam_keeps_two_frozen_weights_none_and_a_half_batch_half():
    adam = dict(optim_wrapper__optimizer=dict(_delete_=True, type='AdamW', lr=1e-3))
    step = count_step(config('moco/digits_v3', **adam), 1)
    weights = {name: count for name, count in step.held.items() if name.startswith('weights')}
    trained, copies = weights.values()
    assert 'AdamW' in ' '.join(step.held)
    assert exact(step) == (trained + copies, trained, 2 * trained)
    half = count_step(config('moco/digits_v3', train_dataloader__batch_size=64, **adam), 1)
    kept = 'kept by the encoder for the backward pass'
    assert half.held[kept] == pytest.approx(step.held[kept] / 2, rel=0.05)


@pytest.mark.slow
def test_buckets_that_are_not_the_gradients_are_a_copy_more():
    cfg = config('vicreg/digits')
    step = count_step(cfg, 2)
    cfg.model_wrapper_cfg = dict(gradient_as_bucket_view=False)
    assert count_step(cfg, 2).peak - step.peak == step.held['gradients']


def test_of_shards_a_rank_has_its_part():
    whole, part = (count_step(config(name), 4) for name in ('sfrik/digits_L2', 'sfrik/digits_L2_sharded'))
    layer = 4 * 256 * 256
    assert [a - b for a, b in zip(exact(whole), exact(part), strict=True)] == 3 * [layer * 3 // 4]
    assert 'columns of embeddings, V x N x q/W = 2 x 512 x 64' in ' '.join(part.held)
    assert whole.received['gradients, all_reduce'] - part.received['gradients, all_reduce'] == 2 * layer * 3 // 4


def test_received_bytes_are_those_of_the_formulas():
    """As benchmarks/distributed.py has them: rows are gathered once; columns go there and back, and partial Grams are summed."""
    B, q, W, V = 32, 256, 4, 2
    N = B * W
    found = {}
    for layout in ('rows', 'columns'):
        step = count_step(config('sfrik/digits_L2', model__head__layout=layout, train_dataloader__batch_size=B), W)
        found[layout] = sum(v for name, v in step.received.items() if name.startswith('neck'))
        assert layout in ' '.join(step.held)
    assert found['rows'] == pytest.approx(V * (W - 1) * B * q * 4, rel=1e-3)
    assert found['columns'] == pytest.approx(
        2 * V * (W - 1) * B * q / W * 4 + 2 * V * (W - 1) / W * N * N * 4, rel=1e-2
    )


@pytest.mark.slow
def test_a_virtual_batch_and_checkpointed_blocks_hold_less():
    cfg = config('sfrik/digits_L2')
    peak = count_step(cfg, 2).peak
    lines = what_to_change(cfg, 2, None, peak, memory=peak // 3)
    alone = {options: bytes_ for options, bytes_, cost in lines if cost != 'together'}
    assert alone['train_dataloader.batch_size=64 train_cfg.virtual_batch=256'] < 0.6 * peak
    assert alone['activation_checkpointing=True'] < 0.9 * peak
    assert list(alone.values()) == sorted(alone.values())
    assert lines[-1][1] < min(alone.values())
    assert lines[-1][2] == 'together'


def test_what_is_set_already_is_not_proposed():
    cfg = config('sfrik/digits_L2_sharded', activation_checkpointing=True, model__head__layout='columns')
    proposed = {key for options, _ in changes(cfg, 2) for key in options}
    assert not proposed & {'activation_checkpointing', 'model.neck.sharded'}
    assert [o for o, _ in changes(cfg, 2) if 'model.head.layout' in o] == [{'model.head.layout': 'rows'}]
    assert not {key for options, _ in changes(cfg, 1) for key in options} & {'model.head.layout', 'fsdp'}


def test_command_line(capsys):
    command = [str(CONFIGS / 'sfrik/digits_L2.py'), '--dry-run', '--gpus', '2', '--nodes', '2', '--memory']
    main(['train', *command, '80GB'])
    text = ' '.join(capsys.readouterr().out.split())
    for words in ('512 = 128 x 4 processes', 'peak of a step', 'fits into 74.5 GiB', 'Received by a rank in a step, 4'):
        assert words in text
    assert 'What to change' not in text
    with pytest.raises(SystemExit, match="'80 apples' is not a size of memory; expected 80GB"):
        main(['train', *command, '80 apples'])
    with pytest.raises(SystemExit, match='--nodes needs --gpus'):
        main(['train', command[0], '--dry-run', '--nodes', '2'])
    with pytest.raises(SystemExit, match='nodes=0'):
        main(['train', *command[:3], '1', '--nodes', '0'])


def test_what_cannot_be_counted_is_estimated():
    cfg = config('vicreg/digits')
    cfg.train_dataloader.dataset.views.both.size = None
    with pytest.raises(NotCounted, match='is not known'):
        count_step(cfg, 1)
    text = ' '.join(dry_run(cfg, 1, io.StringIO(), count=True).split())
    assert 'without activations; not counted: what the views or the model ask for is not known' in text
    assert 'N x N = 128 x 128' in text


@pytest.mark.parametrize('text, count', [('80GB', 80 * 10**9), ('1.5 GiB', 3 * 2**29), ('512m', 512 * 10**6), ('7', 7)])
def test_sizes_that_are_read(text, count):
    assert read_bytes(text) == count


@pytest.mark.parametrize('text', ['', 'GB', '0GB', '-1GB', '80XB', '80 GB GB'])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match='not a size of memory'):
        read_bytes(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    'method',
    ['byol/digits', 'cpc/digits_v1', 'deepcluster/digits_v2', 'lejepa/digits', 'mi/digits_dv', 'swav/digits_queue'],
)
def test_heads_of_all_kinds_are_counted(method):
    step = count_step(config(method), 2, images=1000)
    assert step.peak > sum(exact(step))


def test_a_head_that_copies_values_to_the_host_is_not_counted():
    with pytest.raises(NotCounted, match='meta'):
        count_step(config('wmse/digits_2views'), 1)


def row_of_the_page(change, W):
    page = (CONFIGS.parent / 'docs/one_gpu_to_a_cluster.md').read_text()
    rows = [[cell.strip(' `') for cell in row.split('|')[1:-1]] for row in page.splitlines() if row.startswith('| ')]
    (row,) = [row for row in rows if row[:2] == [change, str(W)]]
    return row[2:]


@pytest.mark.slow
@pytest.mark.parametrize('change', ['none', 'model.neck.sharded=True'])
def test_the_table_of_the_page_is_what_is_counted(change):
    options = {} if change == 'none' else {'model__neck__sharded': True, 'optim_wrapper__precision': 'bfloat16'}
    step = count_step(config('sfrik/r50_L3_q32768', **options), 16)
    received = sum(count for name, count in step.received.items() if name.startswith('neck'))
    held = step.held['weights that are trained'], step.held['the objective at its peak']
    counted = step.peak, *held, received, step.received['gradients, all_reduce']
    assert row_of_the_page(change, 16) == [readable(count) for count in counted]


@pytest.mark.slow
def test_the_row_of_a_spread_encoder_is_what_is_counted():
    step = count_step(config('sfrik/vit_large_multicrop'), 8)
    sent = (sum(count for name, count in step.received.items() if word in name) for word in ('weights', 'gradients'))
    counted = step.peak, *exact(step), *sent
    assert row_of_the_page('fsdp=True activation_checkpointing=True', 8) == [readable(count) for count in counted]
