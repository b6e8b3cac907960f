"""What a person gets wrong ends in one line that names it, with the place in the config, and leaves the work folder as it was."""

import shutil
from pathlib import Path

import pytest

from mmkernel.cli import main

TINY = Path(__file__).parents[1] / 'test_engine/tiny_config.py'
FREEZE = "custom_hooks=[{'type': 'FreezeHook', 'layers': {'nek': 'all'}}]"
PARSED = '@parsed'  # the parser of the command line has said it

# An option on the command line -> what the line says. Refused before anything is built.
OPTIONS = {
    'model.width=(1,2': [
        "model.width: (1,2 is not a list that Python can read ('(' was never closed, column 1)",
    ],
    'model.width=[1,(2]': ["']' does not match opening parenthesis '(', column 6"],
    "model={'width': 3": ['is not a dict that Python can read'],
    'model.width': ["KEY=VALUE, got 'model.width'"],
    'train_dataloader.num_batch_per_epoch=0': ['train_dataloader.num_batch_per_epoch=0; expected'],
    'train_dataloader.num_batch_per_epoch=x': ['train_dataloader.num_batch_per_epoch=x; expected'],
    'train_dataloader.batch_size=0': ['train_dataloader.batch_size=0'],
    'train_dataloader.num_workers=-1': ['train_dataloader.num_workers=-1'],
    'train_dataloader.prefetch_factor=0': ['train_dataloader.prefetch_factor=0'],
    'train_dataloader.drop_last=maybe': ["train_dataloader.drop_last = 'maybe'; expected True or False"],
    'train_dataloader.sampler.shufle=True': ["unknown keyword 'shufle'. Did you mean 'shuffle'"],
    'train_dataloader.dataset=x': ["train_dataloader.dataset = 'x'; expected dict(type='...', ...)"],
    'train_dataloader.collate_fn=default_collate': ["train_dataloader.collate_fn = 'default_collate'; expected dict("],
    "train_dataloader.sampler={'_delete_': True, 'shuffle': True}": [
        "{'shuffle': True}; expected dict(type='...', ...)"
    ],
    'train_cfg.max_epochs=0': ['train_cfg.max_epochs=0; expected'],
    'train_cfg.max_epochs=-1': ['train_cfg.max_epochs=-1; expected'],
    'train_cfg.max_epochs=ten': ['train_cfg.max_epochs=ten; expected'],
    'train_cfg.virtual_batch=12': ['not a multiple of', 'use 8 or 16'],
    'optim_wrapper.optimizer.lr=-0.1': ['optim_wrapper.optimizer.lr=-0.1'],
    'optim_wrapper.optimizer.lr=nan': ["optim_wrapper.optimizer.lr = 'nan'; expected one number"],
    'optim_wrapper.optimizer.lr=1e999': ['optim_wrapper.optimizer.lr=inf; expected'],
    'optim_wrapper.optimizer=SGD': ["optim_wrapper.optimizer = 'SGD'; expected dict(type='...', ...)"],
    'optim_wrapper=SGD': ["optim_wrapper = 'SGD'; expected a dict"],
    'optim_wrapper=None': ['The config has no optim_wrapper'],
    'optim_wrapper.optimizer=None': ['The config has no optim_wrapper.optimizer'],
    'train_dataloader.dataset=None': ['The config has no train_dataloader.dataset'],
    'train_dataloader.batch_size=None': ['The config has no train_dataloader.batch_size'],
    'optim_wrapper.clip_grad=x': ["optim_wrapper.clip_grad = 'x'; expected a dict"],
    'param_scheduler=3': ["param_scheduler = 3; expected dict(type='WarmupCosineLR', ...)"],
    'param_scheduler.warmup_epochs=-1': ['param_scheduler.warmup_epochs=-1'],
    "param_scheduler={'_delete_': True, 'type': 'StepLR', 'step_size': 0}": ['param_scheduler.step_size=0'],
    'custom_hooks.0.interval=1': ["no 'custom_hooks' to change a part of. Give the whole: custom_hooks=..."],
    'custom_hooks=[CommitHook]': ["custom_hooks.0 = 'CommitHook'; expected dict(type='...')"],
    "custom_hooks={'type': 'CommitHook'}": ["custom_hooks = {'type': 'CommitHook'}; expected a list of dicts"],
    'default_hooks.logger=5': ["default_hooks.logger = 5; expected dict(type='...'), or None"],
    'model=TinyModel': ["model = 'TinyModel'; expected dict(type='...', ...)"],
    "model={'_delete_': True, 'width': 3}": ["model = {'width': 3}; expected dict(type='...', ...)"],
    'randomness=3': ['randomness = 3; expected a dict'],
    'randomness.seed=4294967296': ['randomness.seed=4294967296; expected', 'at most 4294967295'],
    'env_cfg.resource_limit=x': ['env_cfg.resource_limit=x'],
    'visualizer=x': ["visualizer = 'x'; expected a dict"],
    'log_level=LOUD': ["log_level = 'LOUD'; expected CRITICAL"],
}

# Refused while the run is built: what is at the folder's expense.
BUILT = {
    'train_dataloader.dataset.length=0': ['train_dataloader: TinyViews is empty'],
    'train_dataloader.batch_size=1000': ['64 images per process make no batch of 1000', 'at most 64'],
    'train_cfg.max_epochs=None': ['train_cfg.max_epochs=None; expected'],
    'param_scheduler.warmup_epochs=abc': ['param_scheduler: WarmupCosineLR.warmup_epochs=abc'],
    'default_hooks.checkpoint.interval=0': ['default_hooks.checkpoint: CheckpointHook.interval=0'],
    'model.width=abc': ['model: TypeError: ', 'MMKERNEL_TRACEBACK=1 shows where'],
    FREEZE: ["FreezeHook: the model has no parameters under 'nek'. Did you mean 'neck'"],  # before the first step
}
BUILT_SLOWLY = {
    'train_dataloader.num_batch_per_epoch=1000': ['train_dataloader: 8000 images of an epoch', 'a data set of 64'],
    'train_dataloader.dataset.length=-1': ['train_dataloader: ValueError: __len__'],
    'model.width=-1': ['model: RuntimeError: Trying to create tensor with negative dimension -1'],
    'optim_wrapper.accumulative_counts=0': ['optim_wrapper.accumulative_counts=0'],
    'optim_wrapper.optimizer.momentum=2': ['optim_wrapper: LARS.momentum=2', 'at most 1'],
    'optim_wrapper.optimizer.weight_decay=-1': ['optim_wrapper: LARS.weight_decay=-1'],
    "param_scheduler={'_delete_': True, 'type': 'StepLR'}": ['param_scheduler: TypeError: ', "'step_size'"],
    "param_scheduler={'_delete_': True, 'type': 'PolyLR', 'begin': 3, 'end': 2}": ['end should be larger than begin'],
    'default_hooks.monitor.interval=0': ['default_hooks.monitor: EmbeddingMonitorHook.interval=0'],
    'default_hooks.logger.interval=0': ['default_hooks.logger: ValueError: interval must be greater than 0'],
    'load_from=nowhere.pth': ["There is no checkpoint 'nowhere.pth'"],
}

# The text of a config file -> what the line says; {tiny} is a whole one.
FILES = {
    '_base_ = {tiny}\nmodel = dict(width=3': ['line 2, column 13', "'(' was never closed: model = dict(width=3"],
    '_base_ = {tiny}\nmodel = dict(width=3])': ['line 2, column 21', "']' does not match"],
    'if True:\nx = 1': ['line 2, column 1', 'expected an indented block'],
    "x = 'abc": ['line 1, column 5', 'unterminated string literal'],
    '_base_ = {tiny}\nx = undefined_name': ["line 2: NameError: name 'undefined_name' is not defined"],
    '_base_ = {tiny}\nimport no_such_module': ["line 2: ModuleNotFoundError: No module named 'no_such_module'"],
    'x = 1 / 0': ['line 1: ZeroDivisionError'],
    "_base_ = 'nowhere.py'": ['nowhere.py', 'which does not exist'],
    "_base_ = 'c.py'": ['circle: c.py -> c.py'],
    '_base_ = 3': ['_base_ has 3; expected the name of a file'],
    '_base_ = [None]': ['_base_ has None; expected the name of a file'],
    '_base_ = [{tiny}, {tiny}]': ['Duplicate key is not allowed among bases'],
    "text = 'x'": ['text is reserved for config file'],
    '': ['The config has no model, train_dataloader, train_cfg, optim_wrapper'],
    b'x = "\xff"': ['is not text in UTF-8 (byte 5 is 0xff)'],
    b'x = 1\0': ['is not text (byte 5 is 0)'],
}


@pytest.fixture
def said(capsys):
    """said(words of the command line) -> the one line."""

    def run(*argv):
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in argv])
        error = capsys.readouterr().err
        assert stop.value.code not in (0, None)
        assert 'Traceback' not in error
        if not isinstance(stop.value.code, str):
            return PARSED + error.strip().splitlines()[-1]
        assert '\n' not in stop.value.code
        return stop.value.code

    return run


def check_option(said, folder, option, words):
    text = said('train', TINY, '--work-dir', folder / 'run', '--cfg-options', option)
    assert not [word for word in words if word not in text], text
    assert not list(folder.iterdir())


@pytest.mark.parametrize('option, words', OPTIONS.items(), ids=list(OPTIONS))
def test_options(said, tmp_path, option, words):
    check_option(said, tmp_path, option, words)


@pytest.mark.parametrize('option, words', BUILT.items(), ids=list(BUILT))
def test_what_is_seen_when_it_is_built(said, tmp_path, option, words):
    check_option(said, tmp_path, option, words)


@pytest.mark.slow
@pytest.mark.parametrize('option, words', BUILT_SLOWLY.items(), ids=list(BUILT_SLOWLY))
def test_more_that_is_seen_when_it_is_built(said, tmp_path, option, words):
    check_option(said, tmp_path, option, words)


@pytest.mark.parametrize('text, words', FILES.items(), ids=[ascii(text) for text in FILES])
def test_files(said, tmp_path, text, words):
    path = tmp_path / 'c.py'
    path.write_bytes(text if isinstance(text, bytes) else text.replace('{tiny}', repr(str(TINY))).encode())
    line = said('train', path, '--work-dir', tmp_path / 'run')
    assert not [word for word in words if word not in line], line
    assert [item.name for item in tmp_path.iterdir()] == ['c.py']
    assert said('train', path, '--dry-run').split(':')[0] == line.split(':')[0] or not text


@pytest.mark.parametrize(
    'words, answer',
    [
        (['nowhere.py'], "There is no config 'nowhere.py'"),
        ([TINY.parent], 'is a folder; expected a config file. It holds: '),
        ([TINY, '--seed', '-1'], 'randomness.seed=-1; expected'),
        ([TINY, '--seed', 'x'], 'Invalid value for --seed: unable to convert "x" into int'),
        ([TINY, '--dry-run', '--gpus', '0'], 'gpus=0; expected'),
        ([TINY, '--launcher', 'slurm'], 'needs SLURM_PROCID'),
        ([TINY, '--resume', 'nowhere.pth'], 'There is no checkpoint'),
    ],
)
def test_words(said, tmp_path, monkeypatch, words, answer):
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    assert answer in said('train', *words, '--work-dir', tmp_path / 'run')
    assert not list(tmp_path.iterdir())


def contents(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*') if path.name != 'run.json'}


def test_a_run_that_is_there_stays_as_it_is(said, tmp_path):
    """After a start that is refused it goes on as if there had been none; ``run.json`` names the last start."""
    options = ['--cfg-options', 'log_level=ERROR']
    (tmp_path / 'note.txt').write_text('mine')
    main(['train', str(TINY), '--work-dir', str(tmp_path), *options, 'train_cfg.max_epochs=2'])
    before = contents(tmp_path)
    for option, word in ((FREEZE, 'nek'), ('optim_wrapper.optimizer.momentum=2', 'momentum=2')):
        line = said(
            'train', TINY, '--work-dir', tmp_path, '--resume-anyway', *options, 'train_cfg.max_epochs=3', option
        )
        assert word in line
        assert contents(tmp_path) == before
    main(['train', str(TINY), '--work-dir', str(tmp_path), '--resume', *options, 'train_cfg.max_epochs=3'])
    assert (tmp_path / 'epoch_3.pth').is_file()


@pytest.mark.parametrize('content', [b"model = dict(type='Ti", b'', b'\x80\x02\xff'])
def test_a_damaged_config_beside_a_good_checkpoint(said, tmp_path, content):
    """It is kept, and the run goes on by the config that is given; it is not read unless it is asked for."""
    options = ['--cfg-options', 'log_level=ERROR', 'train_cfg.max_epochs=2', 'train_dataloader.num_batch_per_epoch=1']
    main(['train', str(TINY), '--work-dir', str(tmp_path / 'run'), *options[:2], 'train_cfg.max_epochs=1', options[3]])
    (tmp_path / 'run/config.py').write_bytes(content)
    shutil.copytree(tmp_path / 'run', tmp_path / 'other')
    main(['train', str(TINY), '--work-dir', str(tmp_path / 'run'), '--resume', *options])
    assert (tmp_path / 'run/config.py.old').read_bytes() == content
    assert "config.py'" in said('train', tmp_path / 'other/config.py', '--work-dir', tmp_path / 'x') or not content
    assert not (tmp_path / 'x').exists()


def test_an_error_inside_a_step_shows_where(tmp_path):
    """It may be a mistake of this package, or of a user's own class."""
    options = ['log_level=ERROR', 'model.bad_iteration=1', 'model.raises=finite']
    with pytest.raises(ValueError, match='The head refuses its rows'):
        main(['train', str(TINY), '--work-dir', str(tmp_path), '--cfg-options', *options])
    assert list(tmp_path.glob('*/*.log'))


@pytest.mark.slow
@pytest.mark.parametrize(
    'option, words',
    [
        ('model.neck.in_dim=7', ['model.neck: RuntimeError: mat1 and mat2 shapes', 'and 7x']),
        ('model.head.temperature=x', ['model.head: InfoNCEHead.temperature=x']),
        ('model.neck.dims=(16,abc)', ['model.neck: MLPNeck.dims=abc']),
        ('evaluation.train.split=x', ["evaluation.train: Digits.split is 'train' or 'test', got 'x'"]),
        ('train_dataloader.dataset.source.split=tran', ['train_dataloader.dataset.source: Digits.split']),
        ('train_dataloader.dataset.views=None', ['ViewDataset has no views']),
    ],
)
def test_parts_inside_parts(said, tmp_path, repository, option, words):
    text = said(
        'train', repository / 'configs/simclr/digits.py', '--work-dir', tmp_path / 'run', '--cfg-options', option
    )
    assert not [word for word in words if word not in text], text
    assert not list(tmp_path.iterdir())


def test_where_it_came_from_is_shown_on_demand(tmp_path, monkeypatch):
    monkeypatch.setenv('MMKERNEL_TRACEBACK', '1')
    with pytest.raises(ValueError, match='max_epochs=0'):
        main(['train', str(TINY), '--work-dir', str(tmp_path), '--cfg-options', 'train_cfg.max_epochs=0'])
