"""The step that ended a run, done again: the same numbers, and the first module with a bad value."""

import json
import sys
from pathlib import Path

import pytest
import torch
from multiprocess import run_processes

from mmkernel.cli import main
from mmkernel.engine import CheckpointError, NonFiniteLossError, load_config, read_checkpoint, train
from mmkernel.engine.last_steps import read_stop
from mmkernel.engine.replaying import Replay

sys.path.insert(0, str(Path(__file__).parent))
from sick_parts import SICK, Provoke  # noqa: E402

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SMALL = {
    'train_dataloader.num_batch_per_epoch': 6,
    'train_dataloader.batch_size': 16,
    'train_dataloader.num_workers': 0,
    'train_cfg.max_epochs': 1,
    'param_scheduler.warmup_epochs': 0,
    'log_level': 'ERROR',
}
QUEUE = dict(
    target=dict(type='MomentumTarget'),
    head=dict(type='SickQueue', how='output', negatives='queue', queue=dict(type='FeatureQueue', length=64)),
    target_views=(1,), online_views=(0,),
)  # fmt: skip


def sick(folder, encoder=None, head=None, value=None, queue=False, hooks=(), **options):
    """A config of eight iterations of 8 images, in which image 47 comes once."""
    cfg = load_config(
        HERE / 'tiny_config.py', {'log_level': 'ERROR', 'train_cfg.max_epochs': 1, 'param_scheduler': None}
    )
    parts = QUEUE if queue else dict(head=dict(type='SickMean', how=head))
    neck = dict(type='MLPNeck', dims=(8,), norm=None, last_norm=None)
    cfg.model = dict(type='JointEmbedding', backbone=dict(type='SickEncoder', how=encoder), neck=neck, **parts)
    cfg.train_dataloader.dataset = dict(type='MarkedViews', value=value)
    cfg.custom_imports.imports = ['tiny_training', 'sick_parts']
    if queue:
        cfg.default_hooks.momentum = dict(type='MomentumUpdateHook', momentum=0.9)
    cfg.custom_hooks = [dict(type=hook) if isinstance(hook, str) else hook for hook in hooks]
    cfg.work_dir = str(folder)
    cfg.merge_from_dict(options)
    return cfg


def stopped(cfg):
    """The file that a run leaves."""
    with pytest.raises(NonFiniteLossError, match='mmkernel replay'):
        train(cfg)
    (file,) = Path(cfg.work_dir).glob('*/non_finite.pth')
    return file


def replayed(cfg, file, precision='float32', **settings):
    return Replay(cfg, *read_stop(file), 'cpu', **settings).run(precision)


CASES = {  # what is sick: (config, where, module, operation, images)
    'module': (dict(encoder='output'), 'output', 'backbone.sick', None, [SICK]),
    'module, backward': (dict(encoder='gradient'), 'gradient', 'backbone.sick', 'SqrtBackward0', None),
    'head': (dict(head='output'), 'output', 'head', None, []),
    'head, backward': (dict(head='gradient'), 'gradient', 'head', 'SqrtBackward0', [SICK]),
    'head, error': (dict(head='error'), 'error', 'head', None, []),
    'queue': (dict(queue=True), 'output', 'head', None, []),
    'image': (dict(value=float('inf')), 'images', 'data_preprocessor', None, [SICK]),
    'weight': (dict(hooks=['SpoilWeight']), 'output', 'neck.0', None, None),
}


@pytest.mark.parametrize('case', CASES)
def test_it_names_the_module_that_is_sick(tmp_path, case):
    given, where, module, operation, images = CASES[case]
    cfg = sick(tmp_path, **given)
    done = replayed(cfg, stopped(cfg))
    found = done.found
    assert done.bad
    assert (found.where, found.module, found.operation) == (where, module, operation)
    assert images is None or found.images == images
    if case == 'weight':
        assert found.parameters['weight']['share_not_finite'] == 1 / 128
    if case == 'image':
        assert found.views == [1]
    if case == 'head, error':
        assert 'LinAlgError' in done.error
        assert 'in x of decomposed' in found.values
    if case in ('head', 'queue'):
        assert [name for name, value in done.losses[0].items() if value != value] == ['loss', 'loss_sick']


@pytest.mark.parametrize('precision', ['float64', 'bfloat16'])
def test_other_precisions(tmp_path, precision):
    cfg = sick(tmp_path, encoder='output')
    found = replayed(cfg, stopped(cfg), precision).found
    assert (found.where, found.module, found.images) == ('output', 'backbone.sick', [SICK])
    if precision == 'float64':
        assert found.inputs['input.0']['type'] == 'float64'


@pytest.mark.parametrize('how', ['accumulation', 'virtual batch'])
@pytest.mark.parametrize('encoder', ['output', 'gradient'])
def test_several_batches_of_a_step(tmp_path, how, encoder):
    options = {'optim_wrapper.accumulative_counts': 4} if how == 'accumulation' else {'train_cfg.virtual_batch': 32}
    cfg = sick(tmp_path, encoder=encoder, **options)
    file = stopped(cfg)
    content, records = read_stop(file)
    window = records[0]['window']
    parts = [part for step in window for part in step['sample_index']]
    assert (len(window), len(parts)) == ((4, 4) if how == 'accumulation' else (1, 4))
    done = replayed(cfg, file)
    assert (done.found.module, done.found.where) == ('backbone.sick', encoder)
    at = next(i for i, step in enumerate(window) if any(SICK in part for part in step['sample_index']))
    assert done.micro_batch == at
    if encoder == 'output':
        assert done.found.images == [SICK]


def provoked(path, folder, step=2, **options):
    """Train a config whose loss of a good step is made NaN; (its config, the file)."""
    Provoke.seen.clear()
    cfg = load_config(ROOT / 'configs' / path, {**SMALL, **options})
    cfg.work_dir, cfg.custom_hooks = str(folder), [dict(type='Provoke', step=step)]
    return cfg, stopped(cfg)


@pytest.mark.parametrize(
    'path, options',
    [
        ('moco/digits_v2.py', {'model.head.queue.length': 64}),
        pytest.param('lejepa/digits.py', {}, marks=pytest.mark.slow),  # slices follow from a count of steps
        pytest.param('swav/digits_queue.py', {'model.head.queue_length': 64, 'default_hooks.queue.start_epoch': 0},
                     marks=pytest.mark.slow),
        pytest.param('deepcluster/digits_v2.py', {}, marks=pytest.mark.slow),
        pytest.param('dbn/digits_shuffled_dbn.py', {'model.neck.last_norm.groups': 4}, marks=pytest.mark.slow),
        pytest.param('wmse/digits_2views.py', {'model.neck.dims': (16, 8), 'model.head.sub_batch_size': 16},
                     marks=pytest.mark.slow),
        pytest.param('byol/digits.py', {'optim_wrapper.accumulative_counts': 3}, marks=pytest.mark.slow),
        pytest.param('corinfomax/digits.py', {'train_cfg.virtual_batch': 32}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_good_step_has_the_losses_of_the_run_bit_for_bit(tmp_path, path, options):
    """Steps that came after it, before the host looked, have moved counters and drawn random numbers."""
    cfg, file = provoked(path, tmp_path, **options)
    done = replayed(cfg, file)
    assert not done.bad
    again = done.losses[-1] if 'accumulative_counts' not in str(options) else done.losses[2]
    assert again == Provoke.seen


def test_dropout_draws_what_it_drew(tmp_path):
    cfg = sick(tmp_path, hooks=[dict(type='Provoke', step=3)])
    Provoke.seen.clear()
    file = stopped(cfg)
    assert replayed(cfg, file).losses == [Provoke.seen]
    content, records = read_stop(file)
    records[0]['window'][0]['random_state'] = dict(torch=torch.Generator().manual_seed(9).get_state())
    assert Replay(cfg, content, records, 'cpu').run('float32').losses != [Provoke.seen]


def in_each(rank, world_size, folder, part, how):
    cfg = sick(folder, **{part: how}, launcher='pytorch')
    try:
        train(cfg)
    except NonFiniteLossError as error:
        return 'mmkernel replay' in str(error)
    return False


def good(path, folder):
    cfg = load_config(ROOT / 'configs' / path, SMALL) if path else sick(folder)
    cfg.work_dir, cfg.custom_hooks = str(folder), [dict(type='Provoke', step=1)]
    return cfg


def good_in_each(rank, world_size, folder, path):
    Provoke.seen.clear()
    cfg = good(path, folder)
    cfg.launcher = 'pytorch'
    try:
        train(cfg)
    except NonFiniteLossError:
        return dict(Provoke.seen)


@pytest.mark.parametrize(
    'part, how',
    [
        ('encoder', 'output'),
        pytest.param('head', 'output', marks=pytest.mark.slow),
        pytest.param('head', 'error', marks=pytest.mark.slow),  # each process ends without asking the other
    ],
)
def test_two_processes(tmp_path, part, how):
    assert run_processes(in_each, 2, str(tmp_path), part, how) == [True, True]
    (file,) = tmp_path.glob('*/non_finite.pth')
    cfg, (content, records) = sick(tmp_path, **{part: how}), read_stop(file)
    assert [record['rank'] for record in records] == [0, 1]
    found = Replay(cfg, content, records, 'cpu').run('float32').found
    assert (found.module, found.images) == (('backbone.sick', [SICK]) if part == 'encoder' else ('head', []))
    assert found.where == how
    own = next(r['rank'] for r in records if SICK in r['window'][0]['sample_index'][0])
    assert Replay(cfg, content, records, 'cpu', rank=own).run('float32').bad
    assert not Replay(cfg, content, records, 'cpu', rank=1 - own).run('float32').bad
    content['meta']['batch_norm'] = 'all'  # as SyncBN leaves it: one batch in the order of the processes
    together = Replay(cfg, content, records, 'cpu')
    (pieces,) = together.data.window
    assert [piece.sample_index for piece in pieces] == [sum((r['window'][0]['sample_index'][0] for r in records), [])]
    assert together.run('float32').bad
    with pytest.raises(ValueError, match='--rank 2: there are records of the processes 0, 1'):
        Replay(cfg, content, records, 'cpu', rank=2)


@pytest.mark.slow
@pytest.mark.parametrize('path', [None, 'dbn/digits_shuffled_dbn.py', 'lejepa/digits.py'])
def test_the_losses_of_two_processes(tmp_path, path):
    """Dropout of each process, permutations of channels that follow from a count of passes, slices from one of steps."""
    seen = run_processes(good_in_each, 2, str(tmp_path), path)
    (file,) = tmp_path.glob('*/non_finite.pth')
    (losses,) = replayed(good(path, tmp_path), file).losses
    mean = sum(each['loss'] for each in seen) / 2  # the head of the first takes the mean of its own rows
    assert losses['loss'] == pytest.approx(mean, rel=1e-6)


def test_the_command(tmp_path, capsys):
    cfg = sick(tmp_path, encoder='output')
    file = stopped(cfg)
    words = ['replay', str(file), '--config', str(tmp_path / 'config.py')]
    main(words)
    text = ' '.join(capsys.readouterr().out.split())
    assert 'whose loss was nan: 8 images of 1 process(es)' in text
    assert 'The first bad value is in what backbone.sick (Part) gives: output' in text
    assert f'images {SICK} (record {SICK})' in text
    main([*words, '--json', '--precision', 'float64'])
    found = json.loads(capsys.readouterr().out)
    assert found['files'] == {str(SICK): f'record {SICK}'}
    assert [(each['precision'], each['found']['module']) for each in found['replays']] == [('float64', 'backbone.sick')]
    assert found['replays'][0]['losses'][0]['loss'] == 'nan'
    with pytest.raises(SystemExit) as stop:
        main([*words, '--cfg-options', 'model.backbone.how=None'])
    assert stop.value.code == 3
    assert 'float32 on cpu: the step is finite.' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='trained on 64 images, the data set of the config has 48'):
        main([*words, '--cfg-options', 'train_dataloader.dataset.length=48'])
    with pytest.raises(SystemExit, match='custom_imports.*If you trust it.*There is one above it: --config'):
        main(words[:2])
    with pytest.raises(SystemExit, match='a picture shows views of uint8'):
        main([*words, '--out', str(tmp_path / 'views.png')])


def test_half_precision_and_a_page_of_views(tmp_path, capsys):
    """A config of the package, from its file alone; nothing overflows, until weights are made too large for float16."""
    cfg, file = provoked('kernels/digits_rbf.py', tmp_path, **{'optim_wrapper.precision': 'bfloat16'})
    picture = tmp_path / 'views.png'
    with pytest.raises(SystemExit) as stop:
        main(['replay', str(file.parent), '--out', str(picture)])
    assert stop.value.code == 3
    text = capsys.readouterr().out
    assert 'bfloat16 on cpu: the step is finite.' in text
    assert 'float32 on cpu: the step is finite.' in text
    assert picture.is_file()
    content = read_checkpoint(file)
    assert content['meta']['kind'] == 'non_finite'
    content['state_dict']['neck.0.weight'] *= 1e6
    torch.save(content, file)
    main(['replay', str(file), '--cfg-options', 'optim_wrapper.precision=float16'])
    assert 'float16 overflows here at neck.0; in float32 the step is finite.' in capsys.readouterr().out


def test_files_of_another_kind(tmp_path):
    cfg = sick(tmp_path / 'run', encoder='output')
    file = stopped(cfg)
    with pytest.raises(CheckpointError, match="before a step that is not finite: 'mmkernel replay' takes it"):
        train(sick(tmp_path / 'other', encoder='output'), resume=file)
    record = file.with_name('non_finite_rank0.json')
    text = record.read_text()
    for wrong in ('', '[]', '{"rank": 0}', text.replace(f'{SICK}', '-1'), text.replace('"torch": "', '"torch": "?')):
        record.write_text(wrong)
        with pytest.raises(CheckpointError, match='non_finite_rank0.json.*is damaged or no record of a step'):
            read_stop(file)
    record.unlink()
    with pytest.raises(CheckpointError, match='there is no non_finite_rank0.json of iteration'):
        read_stop(file)
    content = read_checkpoint(file)
    for key, wrong in dict(kind='x', images='64', world_size=None, scale='1').items():
        torch.save({**content, 'meta': {**content['meta'], key: wrong}}, file)
        with pytest.raises(CheckpointError, match='holds no step to replay'):
            read_stop(file)
    other = tmp_path / 'epoch_1.pth'
    torch.save(dict(meta={}, state_dict={}), other)
    with pytest.raises(CheckpointError, match='holds no step to replay: expected the non_finite.pth'):
        read_stop(other)
    with pytest.raises(FileNotFoundError, match='There is no checkpoint'):
        read_stop(tmp_path / 'nothing.pth')


@pytest.mark.parametrize(
    'name, words',
    [
        ('write_checkpoint', 'cannot be replayed, as .*non_finite.pth could not be written.*No space'),
        ('replacing', 'the sample indices of the batch could not be written.*No space'),
    ],
)
def test_what_cannot_be_written_does_not_hide_the_error(tmp_path, monkeypatch, name, words):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(f'mmkernel.engine.last_steps.{name}', full)
    with pytest.raises(NonFiniteLossError, match=words):
        train(sick(tmp_path, encoder='output'))
    assert len(list(tmp_path.glob('*/non_finite*'))) == 1


def test_the_config_inside_is_not_run(tmp_path):
    cfg, file = provoked('kernels/digits_rbf.py', tmp_path)
    content, mark = read_checkpoint(file), tmp_path / 'ran'
    content['meta']['config'] += f"\nx = __import__('pathlib').Path({str(mark)!r}).touch()\n"
    torch.save(content, file)
    with pytest.raises(SystemExit, match='is more than values.*it is not run') as stop:
        main(['replay', str(file)])
    assert '\n' not in str(stop.value)
    assert not mark.exists()
