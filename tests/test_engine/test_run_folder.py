"""A work folder belongs to one run: what is refused, what is kept, what goes on."""

import errno
import multiprocessing
import os
import re
import resource
import time

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from test_runner import config, digest

from mmkernel.cli import main
from mmkernel.engine import (
    CheckpointError,
    CSVBackend,
    RunFolderError,
    persistence,
    read_checkpoint,
    run_folder,
    train,
    write_checkpoint,
)
from mmkernel.engine.run_folder import RunFolder
from mmkernel.registry import HOOKS
from mmkernel.zoo.files import bytes_of


def files(folder):
    """{path: bytes} of all that lies in a folder, ``run.json`` (whose times change) left out."""
    found = (path for path in folder.rglob('*') if path.is_file() and path.name != 'run.json')
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def checkpoint(folder, epoch, run='other', name=None):
    folder.mkdir(exist_ok=True)
    path = folder / (name or f'epoch_{epoch}.pth')
    meta = dict(run=run, epoch=epoch, iter=epoch)
    write_checkpoint(dict(meta=meta, optimizer={}, state_dict=dict(w=torch.ones(2))), path)
    return path


def short(folder, epochs=2, **options):
    return config(folder, **{'train_cfg.max_epochs': epochs, **options})


@pytest.mark.parametrize('marked', [True, False])  # earlier versions left no run.json
def test_the_same_command_again_changes_nothing(tmp_path, marked):
    train(short(tmp_path, 3))
    if not marked:
        (tmp_path / 'run.json').unlink()
    before, names = files(tmp_path), sorted(os.listdir(tmp_path))
    with pytest.raises(RunFolderError, match=r'epoch_1.pth, epoch_2.pth, epoch_3.pth.*--resume.*--work-dir'):
        train(short(tmp_path))
    assert (files(tmp_path), sorted(os.listdir(tmp_path))) == (before, names)


def test_the_command_line_says_it_in_one_line(tmp_path, repository):
    checkpoint(tmp_path, 4)
    with pytest.raises(SystemExit) as error:
        main(['train', str(repository / 'tests/test_engine/tiny_config.py'), '--work-dir', str(tmp_path)])
    assert str(error.value).startswith('RunFolderError: The work folder')
    assert '\n' not in str(error.value)


def test_files_of_others_do_not_make_a_folder_used_and_stay(tmp_path):
    for name in ('notes.txt', 'slurm-1.out', 'train.log', 'best_of_theirs.pth', 'epoch_2_mmdetection.pth', 'knn.json'):
        (tmp_path / name).write_text(name)
    before = files(tmp_path)
    train(short(tmp_path, **{'default_hooks.checkpoint.max_keep': 1}))
    assert files(tmp_path).items() >= before.items()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [
        'best_of_theirs.pth',
        'epoch_2.pth',
        'epoch_2_mmdetection.pth',
    ]


@pytest.mark.parametrize('resume', [False, True])
def test_a_config_that_no_run_has_left_is_not_replaced(tmp_path, resume):
    (tmp_path / 'config.py').write_text('mine = 1\n')
    with pytest.raises(RunFolderError, match='config.py.*would be replaced'):
        train(short(tmp_path), resume=resume)
    assert files(tmp_path) == {'config.py': b'mine = 1\n'}


def test_a_run_that_got_nowhere_is_no_obstacle_and_keeps_its_files(tmp_path):
    with pytest.raises(ValueError, match='no batch of 8'):
        train(short(tmp_path, **{'train_dataloader.dataset.length': 5}))
    with pytest.raises(RuntimeError, match='is nan'):
        train(short(tmp_path, **{'model.bad_iteration': 1}))
    before = files(tmp_path)
    train(short(tmp_path))
    after = files(tmp_path)
    assert after.pop('config.py.old') == before.pop('config.py')
    assert after.items() >= before.items()


@pytest.mark.parametrize('name', ['epoch_1.pth', 'best_mmd2.pth'])
def test_resume_where_nothing_opens_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b'half a checkpoint')
    before = files(tmp_path)
    with pytest.raises(CheckpointError, match=f'none of the checkpoints .*{name}.*would overwrite'):
        train(short(tmp_path), resume=True)
    assert files(tmp_path) == before
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize('name', ['new', 'new/below'])
def test_resume_in_a_new_folder_starts_and_then_goes_on(tmp_path, name):
    train(short(tmp_path / name, 1), resume=True)
    assert train(short(tmp_path / name, 2), resume=True).epoch == 2
    run = {read_checkpoint(path)['meta']['run'] for path in (tmp_path / name).glob('*.pth')}
    assert len(run) == 1


def test_a_file_before_the_last_is_refused_and_branches_off_elsewhere(tmp_path):
    straight = train(short(tmp_path / 'a', 3))
    before = files(tmp_path / 'a')
    with pytest.raises(RunFolderError, match=r'has gone further \(epoch_2.pth, epoch_3.pth\)'):
        train(short(tmp_path / 'a', 3), resume=str(tmp_path / 'a/epoch_1.pth'))
    branch = train(short(tmp_path / 'b', 3), resume=str(tmp_path / 'a/epoch_1.pth'))
    assert digest(branch.model) == digest(straight.model)
    assert files(tmp_path / 'a') == before
    metas = [read_checkpoint(tmp_path / part)['meta'] for part in ('a/epoch_3.pth', 'b/epoch_3.pth')]
    assert metas[0]['run'] != metas[1]['run']
    with pytest.raises(RunFolderError, match='an earlier run'):  # b is used now
        train(short(tmp_path / 'b', 3), resume=str(tmp_path / 'a/epoch_3.pth'))


def test_a_clock_that_was_set_back_deletes_nothing_ahead(tmp_path, monkeypatch):
    train(short(tmp_path, 4))
    monkeypatch.setattr(time, 'time', lambda: 1e9)
    assert train(short(tmp_path, 5), resume=True).epoch == 5
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_3.pth', 'epoch_4.pth', 'epoch_5.pth']


def test_a_file_that_does_not_open_is_kept_beside_the_new_one(tmp_path):
    train(short(tmp_path, 2))
    (tmp_path / 'epoch_2.pth').write_bytes(b'who knows')
    with pytest.warns(UserWarning, match='Skipped'):
        train(short(tmp_path, 2), resume=True)
    assert (tmp_path / 'epoch_2.pth.old').read_bytes() == b'who knows'
    assert read_checkpoint(tmp_path / 'epoch_2.pth')['meta']['epoch'] == 2


def test_only_own_checkpoints_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    folder.take()
    foreign = checkpoint(tmp_path, 1)  # copied here while the run goes on
    for epoch in (2, 3, 4):
        folder.wrote(checkpoint(tmp_path, epoch, folder.run))
    folder.drop_oldest(1)
    folder.release()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == [foreign.name, 'epoch_4.pth']


def in_another_process(folder, answer):
    try:
        RunFolder(folder).take()
        answer.put('taken')
    except RunFolderError as error:
        answer.put(str(error))


def ask(folder):
    context = multiprocessing.get_context('fork')
    answer = context.Queue()
    process = context.Process(target=in_another_process, args=(folder, answer))
    process.start()
    found = answer.get(timeout=60)
    process.join(60)
    return found


def test_two_processes_do_not_share_a_folder(tmp_path):
    first = RunFolder(tmp_path)
    first.take()
    RunFolder(tmp_path).take()  # a Runner built again in one process, as in a notebook
    said = ask(tmp_path)
    assert f'A run is going on in {str(tmp_path)!r} (process {os.getpid()}' in said
    first.release()
    assert ask(tmp_path) == 'taken'
    assert ask(tmp_path) == 'taken'  # the lock went with the process


def test_a_restart_by_torchrun_goes_on_and_the_next_command_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'one')
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '0')
    fails = {'model.bad_iteration': 12}  # counted from the start of a process: in the second epoch, once
    with pytest.raises(RuntimeError, match='is nan'):
        train(short(tmp_path, 2, **fails))
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    again = train(short(tmp_path, 2, **fails))
    assert (again.epoch, len(again.message_hub.get_scalar('train/loss').data[0])) == (2, 16)
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'two')
    with pytest.raises(RunFolderError, match='an earlier run'):
        train(short(tmp_path, 2, **fails))


def test_logs_of_one_second_lie_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(time, 'strftime', lambda *_: '20260101_000000')
    train(short(tmp_path, 1))
    train(short(tmp_path, 2), resume=True)
    assert sorted(path.name for path in tmp_path.glob('2026*')) == ['20260101_000000', '20260101_000000_1']


def test_a_table_of_an_earlier_run_is_kept(tmp_path):
    for value in (1.0, 2.0):
        backend = CSVBackend(str(tmp_path))
        backend.add_scalars(dict(loss=value), step=1)
        backend.add_scalars(dict(loss=value, knn=3.0), step=2)
    assert (tmp_path / 'scalars.csv.old').read_text().splitlines() == ['step,loss,knn', '1,1.0,', '2,1.0,3.0']
    assert (tmp_path / 'scalars.csv').read_text().splitlines() == ['step,loss,knn', '1,2.0,', '2,2.0,3.0']


@pytest.mark.parametrize('text', ['{"mine": 1}', '[1]', 'my notes'])
@pytest.mark.parametrize('resume', [False, True])
def test_a_run_json_of_another_program_is_not_replaced(tmp_path, text, resume):
    (tmp_path / 'run.json').write_text(text)
    with pytest.raises(RunFolderError, match='run.json.*no run has left it'):
        train(short(tmp_path), resume=resume)
    assert (tmp_path / 'run.json').read_text() == text
    assert os.listdir(tmp_path) == ['run.json']


def test_a_run_that_was_killed_while_it_wrote_its_name_is_no_obstacle(tmp_path):
    train(short(tmp_path, 1))
    (tmp_path / 'epoch_1.pth').unlink()
    (tmp_path / 'run.json').write_text('')
    train(short(tmp_path, 1), resume=True)


def test_a_path_names_the_file_as_a_text_does(tmp_path):
    train(short(tmp_path / 'a', 2))
    with pytest.raises(RunFolderError, match=r'has gone further \(epoch_2.pth\)'):
        train(short(tmp_path / 'a', 3), resume=tmp_path / 'a/epoch_1.pth')
    with pytest.raises(
        FileNotFoundError, match='is a folder; expected a file. The folder holds: epoch_1.pth, epoch_2.pth'
    ):
        train(short(tmp_path / 'b'), resume=tmp_path / 'a')


def test_logs_in_one_folder_are_kept(tmp_path):
    for run in ('a', 'b'):
        train(short(tmp_path / run, 1, visualizer=dict(save_dir=str(tmp_path / 'logs'))))
    logs = tmp_path / 'logs/vis_data'
    for name in ('config.py', 'scalars.json'):
        assert (logs / f'{name}.old').read_text().count('step') == (logs / name).read_text().count('step')
    work_dirs = [f"work_dir = '{tmp_path / run}'" for run in ('a', 'b')]
    assert work_dirs[0] in (logs / 'config.py.old').read_text()
    assert work_dirs[1] in (logs / 'config.py').read_text()


def test_a_checkpoint_that_cannot_be_written_names_the_last_good_one(tmp_path, monkeypatch):
    write = persistence.write_checkpoint

    def full(content, path, last):
        if path.name == 'epoch_2.pth':
            raise OSError(errno.ENOSPC, 'No space left on device')
        write(content, path, last)

    monkeypatch.setattr(persistence, 'write_checkpoint', full)
    with pytest.raises(
        OSError, match=r'epoch_2.pth. cannot be written \(No space .*last good checkpoint is .*epoch_1.pth'
    ):
        train(short(tmp_path))


@HOOKS.register_module()
class DiskFills(Hook):
    """In the second epoch, files may no longer be large enough for a checkpoint."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))


def test_a_disk_that_fills_up_ends_a_run_in_one_line_and_the_last_checkpoint_stays(tmp_path, repository):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = ['--work-dir', str(tmp_path), '--cfg-options', 'custom_hooks=[{"type": "DiskFills"}]', 'log_level=ERROR']
    try:
        with pytest.raises(SystemExit) as error:
            main(['train', str(repository / 'tests/test_engine/tiny_config.py'), *words, 'default_hooks.logger=None'])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert re.fullmatch(
        r"NotWrittenError: '.*epoch_2.pth' cannot be written \(File too large: .* about 0.0 MB are needed, 0.0 MB can be "
        r'written\). The last good checkpoint is .*epoch_1.pth: .*',
        str(error.value),
    )
    assert read_checkpoint(tmp_path / 'epoch_1.pth')['meta']['epoch'] == 1
    assert not [*tmp_path.glob('.epoch*'), *tmp_path.glob('epoch_2*')]


def test_a_disk_without_room_for_a_checkpoint_is_named_before_the_work(tmp_path, monkeypatch):
    cfg, said = short(tmp_path, 1), []
    needed = read_checkpoint(train(short(tmp_path / 'first', 1)).folder.checkpoints[0])
    least = bytes_of(dict(needed['state_dict'], optimizer=needed['optimizer']))
    monkeypatch.setattr(run_folder, 'room', lambda folder: least // 2)
    with pytest.raises(
        RunFolderError, match=r'A checkpoint takes about .* MB, and .* MB can be written in .*make room'
    ):
        train(cfg)
    assert not [*tmp_path.glob('*.pth')]
    monkeypatch.setattr(run_folder, 'room', lambda folder: least + least // 2)
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *_: said.append(text))
    train(cfg)
    assert 'the old one goes only after the new one is written' in said[0]


def test_the_copy_of_the_config_asks_for_nothing(tmp_path):
    train(short(tmp_path / 'a', 1))
    before = (tmp_path / 'a/config.py').read_text()
    train(short(tmp_path / 'a', 1), resume=True, resume_anyway=True)
    assert (tmp_path / 'a/config.py').read_text() == before
    assert not (tmp_path / 'a/config.py.old').exists()
    train(short(tmp_path / 'b', 1), resume=str(tmp_path / 'a/epoch_1.pth'))
    assert 'resume' not in (tmp_path / 'b/config.py').read_text() + before
    assert 'load_from' not in (tmp_path / 'b/config.py').read_text()


def test_a_work_folder_that_cannot_be_one_is_named(tmp_path):
    (tmp_path / 'file').write_text('mine')
    (tmp_path / 'link').symlink_to('nowhere')
    for name in ('file', 'file/below', 'link'):
        with pytest.raises(RunFolderError, match=f'{name}. cannot be written .*--work-dir'):
            train(short(tmp_path / name))


def test_of_several_runs_the_one_named_goes_on_and_the_other_is_kept(tmp_path):
    train(short(tmp_path / 'a', 2))
    foreign = checkpoint(tmp_path / 'a', 3).read_bytes()
    with pytest.raises(CheckpointError, match=r'2 runs \(epoch_1.pth, epoch_2.pth; epoch_3.pth\).*--resume FILE'):
        train(short(tmp_path / 'a', 3), resume=True)
    assert train(short(tmp_path / 'a', 3), resume=str(tmp_path / 'a/epoch_2.pth')).epoch == 3
    assert (tmp_path / 'a/epoch_3.pth.old').read_bytes() == foreign


def test_weights_under_the_name_of_an_epoch_are_skipped_and_kept(tmp_path):
    train(short(tmp_path, 1))
    torch.save(dict(state_dict={}), tmp_path / 'epoch_7.pth')
    with pytest.warns(UserWarning, match=r'Skipped .*epoch_7.pth.*not one of a run'):
        assert train(short(tmp_path, 2), resume=True).epoch == 2
    assert (tmp_path / 'epoch_7.pth').exists()


def test_resume_in_a_new_folder_starts_from_the_weights_that_the_config_names(tmp_path):
    train(short(tmp_path / 'a', 2))
    found = []
    for name, resume in (('b', False), ('c', True)):
        cfg = short(tmp_path / name, 1)
        cfg.load_from = str(tmp_path / 'a/epoch_2.pth')
        found.append(digest(train(cfg, resume).model))
    assert found[0] == found[1] != digest(train(short(tmp_path / 'd', 1)).model)
    cfg.train_cfg.max_epochs = 2
    assert train(cfg, resume=True).epoch == 2  # and then goes on with its own
    assert (
        read_checkpoint(tmp_path / 'c/epoch_2.pth')['meta']['run']
        == read_checkpoint(tmp_path / 'c/epoch_1.pth')['meta']['run']
    )
