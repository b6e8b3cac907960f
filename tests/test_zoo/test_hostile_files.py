"""Every door that opens a file of weights, with files that try to run code: no marker appears, and the refusal says why."""

import json
import os
import sys

import pytest
import torch
from exported import config, encoder

from mmkernel.cli import main
from mmkernel.cli.named_encoder import load_trained
from mmkernel.engine import load_checkpoint, load_config, train
from mmkernel.evaluation import untrained_encoder
from mmkernel.registry import ALL
from mmkernel.zoo import (
    CheckpointError,
    export_model,
    hub,
    load,
    load_file,
    read_checkpoint,
    write_checkpoint,
)
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.files import write_safetensors
from mmkernel.zoo.metafile import ModelInfo, WeightsFile
from mmkernel.zoo.plain_config import plain_config

SMALL = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (16, 16)}
MARK = "__import__('pathlib').Path('ran').touch()"
# What is put behind (or in place of) a good config -> what the refusal says.
TEXTS = {
    'substitution in a comment': ('#{{$ZZZ:\\n' + MARK + '#|.*}}\n', 'has a substitution'),
    'variable of the environment': ("a = '{{$HOME:x}}'\n", 'has a substitution'),
    'variable of the file': ("a = '{{ fileDirname }}'\n", 'has a substitution'),
    'substitution in two halves': ("a = dict(b=['{' '{ fileDirname }}'])\n", 'has a substitution'),
    'substitution in a key': ("a = {'{{ fileDirname }}': 1}\n", 'has a substitution'),
    'base': ("_base_ = ['evil.py']\n", "has '_base_'"),
    'base below': ("a = dict(b=[dict(_base_='evil.py')])\n", "has '_base_' (a.b.0._base_)"),
    'imports': ("custom_imports = dict(imports=['evil'])\n", "has 'custom_imports'"),
    'imports below': ("a = [{'custom_imports': dict(imports='evil')}]\n", "has 'custom_imports' (a.0.custom_imports)"),
    'imports in other letters': ("ｃustom_imports = dict(imports=['evil'])\n", "has 'custom_imports'"),
    'folders': ("import_folders = ['.']\n", "has 'import_folders'"),
    'folders below': ("a = dict(Import_Folders=('.',))\n", "has 'Import_Folders'"),
    'scope': ("a = dict(type='Evil', _scope_='evil')\n", "a._scope_='evil'"),
    'default scope': ("default_scope = 'evil'\n", "default_scope='evil'"),
    'function of a module': ("custom_hooks = [dict(type='os.system', command='touch ran')]\n", "type='os.system'"),
    'class of a module': ("a = dict(type='subprocess.Popen', args=['touch', 'ran'])\n", "type='subprocess.Popen'"),
    'module of that name': ("custom_hooks = [dict(type='evil')]\n", "the config inside '"),
    'type that is no name': ("a = dict(type=['os.system'])\n", 'asks for type='),
    'code': (f'a = {MARK}\n', 'is more than values (line '),
    'comprehension': ('a = [open("ran", "w") for _ in range(1)]\n', 'is more than values'),
    'formatted': ('a = f"{open(\'ran\', \'w\')}"\n', 'is more than values'),
    'a key twice': ("model = dict(type='JointEmbedding')\n", 'a key stands twice'),
    'a keyword twice': ('a = dict(b=1, b=2)\n', 'a key stands twice'),
    'depth': (f'a = {"[" * 90}{"]" * 90}\n', 'more than 64 levels deep'),
    'more depth': (f'a = {"-" * 100_000}1\n', 'cannot be read'),
    'length': (f'a = {" " * (1 << 20)}1\n', 'expected a text of at most'),
}  # fmt: skip
NO_TEXTS = {'no text': ['a = 1'], 'no model': 'a = 1\n', 'model of another kind': "model = 'os.system'\n"}


@pytest.fixture(scope='module')
def good(repository):
    """(resolved config, state dict) of a trained model of the digits recipe."""
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', SMALL)
    model = untrained_encoder(cfg)
    images = torch.rand(32, 1, 16, 16)
    model.embeddings([images, images])
    for key in ('custom_hooks', 'default_scope'):  # so that what is put behind the text can have them
        cfg.pop(key, None)
    return cfg, model.state_dict()


@pytest.fixture(autouse=True)
def trap(tmp_path, monkeypatch):
    """A working folder with a module and a config.py that leave a mark when they are run."""
    (tmp_path / 'evil').mkdir()
    mark = f'open({str(tmp_path / "ran")!r}, "w")\n'
    for name in ('evil/__init__.py', 'evil.py', 'config.py'):
        (tmp_path / name).write_text(mark)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / 'ran'
    sys.modules.pop('evil', None)
    assert not (tmp_path / 'ran').exists()


def files(good, text):
    """The same weights and text as a checkpoint and in a header."""
    _, state = good
    write_checkpoint(dict(meta=dict(epoch=1, iter=11, config=text), state_dict=state), 'x.pth')
    if isinstance(text, str):
        write_safetensors(state, 'x.safetensors', dict(config=text))
    return [name for name in ('x.pth', 'x.safetensors') if os.path.exists(name)]


def test_a_long_text_is_read_line_by_line():
    """A check of all lines at each line would take minutes for the longest text that is read."""
    count = 60_000
    values = plain_config(''.join(f'k{i:05} = {i}\n' for i in range(count)), 'x.pth')
    assert len(values) == count
    assert values['k00007'] == 7


@pytest.mark.parametrize('kind', [*TEXTS, *NO_TEXTS])
def test_commands_refuse_the_config_inside(good, kind):
    text, said = TEXTS[kind] if kind in TEXTS else (NO_TEXTS[kind], "the config inside '")
    if kind in TEXTS:
        text = good[0].pretty_text + text
    for name in files(good, text):
        for command in (['diagnose', '--text'], ['export', '--to', 'safetensors'], ['publish', '--name', 'x']):
            with pytest.raises(SystemExit) as stop:
                main([command[0], name, *command[1:]])
            assert said in str(stop.value)
            assert '\n' not in str(stop.value)
    assert not set(os.listdir()) - {'evil', 'evil.py', 'config.py', 'x.pth', 'x.safetensors', 'published'}


def test_the_config_beside_a_file_is_run_when_it_is_named(good, trap, capsys):
    files(good, good[0].pretty_text)
    main(['diagnose', 'x.pth', '--text', '--images', '20'])
    main(['export', 'x.pth', '--to', 'safetensors'])
    assert not trap.exists()
    with pytest.raises(SystemExit, match='describes no model|model'):
        main(['export', 'x.pth', '--to', 'safetensors', '--force', '--config', 'config.py'])
    assert trap.exists()
    trap.unlink()


def test_doors_that_need_no_config_do_not_read_it(good, monkeypatch):
    """Weights only: what the file says of its config is never looked at."""
    cfg, state = good
    for name in files(good, cfg.pretty_text + ''.join(text for text, _ in TEXTS.values())):
        model = untrained_encoder(cfg)
        for fill in (load_checkpoint, lambda model, path: load_trained(model, path, 'backbone')):
            fill(model, name)
        load_file(model.backbone, name)
        found, read = load(name, cfg, arch='resnet18'), load(name, cfg)
        for each in (found, read):
            assert torch.equal(each.backbone.state_dict()['conv1.weight'], state['backbone.conv1.weight'])
        assert read.facts['config'] == config_text(cfg.to_dict())  # what was used, not what the file says
        monkeypatch.setattr(hub, 'download', lambda *_, name=name, **__: name)
        monkeypatch.setattr(hub, 'model_info', lambda _: ModelInfo('x', 'X', 'x.py'))
        monkeypatch.setattr(hub, '_file', lambda *_: WeightsFile('x', stage='model'))
        monkeypatch.setattr(hub, 'config_of', lambda _: cfg)
        hub.get_model('x')


def test_training_goes_on_without_reading_it(good, repository, tmp_path):
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', {**SMALL, 'train_cfg.max_epochs': 1})
    cfg.train_dataloader.update(num_batch_per_epoch=2, batch_size=16)
    cfg.default_hooks = dict(checkpoint=cfg.default_hooks.checkpoint)
    files(good, cfg.pretty_text + ''.join(text for text, _ in TEXTS.values()))
    cfg.load_from, cfg.work_dir = 'x.pth', str(tmp_path / 'run')
    train(cfg)
    assert (tmp_path / 'run/epoch_1.pth').is_file()


def header(**changes):
    net = encoder('small')
    tensors = {f'backbone.{key}': value for key, value in net.backbone.state_dict().items()}
    meta = net.metadata()
    options, pixels = json.loads(meta['backbone']), json.loads(meta['preprocessing'])
    meta |= {key: value for key, value in changes.items() if isinstance(value, str)}
    for key, values in (('backbone', options), ('preprocessing', pixels)):
        if isinstance(changes.get(key), dict):
            meta[key] = json.dumps(values | changes[key])
    write_safetensors(tensors, 'x.safetensors', meta)


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        *((dict(config=f'model = dict()\n{text}'), said) for text, said in TEXTS.values() if said != "the config inside '"),
        (dict(backbone=dict(type='os.system', command='touch ran')), "type='os.system'"),
        (dict(backbone=dict(type='evil')), "type 'evil' is not registered"),
        (dict(backbone=dict(_scope_='evil')), "_scope_='evil'"),
        (dict(backbone=dict(norm=dict(type='evil.registry'))), "type='evil.registry'"),
        (dict(backbone=dict(model_name='hf-hub:timm/resnet18')), "timm has no model 'hf-hub"),
        (dict(backbone='{"type": "TIMMBackbone", "type": "evil"}'), 'a key stands twice'),
        (dict(backbone='[1]'), 'is a list; expected a dict'),
        (dict(backbone='[' * 100_000), 'cannot be read'),
        (dict(backbone=dict(channels='x')), 'does not say how its encoder is built'),
        (dict(preprocessing=dict(std=[0.0])), 'std=0.0; expected'),
        (dict(preprocessing=dict(mean=[0.5] * 3, std=[0.5] * 3)), 'mean of 3 channels, images of 1'),
        (dict(preprocessing=dict(size=[1 << 30, 1 << 30])), 'height and width in pixels'),
    ],
)  # fmt: skip
def test_headers_that_describe_an_encoder(changes, said):
    header(**changes)
    for command in (['export', '--to', 'safetensors'], ['publish', '--name', 'x']):
        with pytest.raises(SystemExit) as stop:
            main([command[0], 'x.safetensors', *command[1:]])
        assert said in str(stop.value)
    with pytest.raises((ValueError, RuntimeError)) as stop:
        load('x.safetensors')
    assert said in str(stop.value)
    assert load('x.safetensors', config('small'))  # a config of its own is the way out


def test_figures_without_their_source():
    for metrics in ('[{"Metrics": 1}]', '[' * 100_000, '3'):
        header(metrics=metrics)
        with pytest.raises(CheckpointError, match="'x.safetensors' has figures that no card can show"):
            load('x.safetensors')


ELSEWHERE = dict(pretrained=True, checkpoint_path='other.pth', pretrained_cfg=dict(url='https://x'), cache_dir='.')


def test_weights_from_elsewhere_are_not_asked_for(good, capsys):
    """Every tensor comes from the file: options that name others are left out, at every door."""
    header(backbone=ELSEWHERE)
    assert not set(ELSEWHERE) & set(load('x.safetensors').options)
    cfg = good[0].to_dict()
    cfg['model']['backbone'] |= ELSEWHERE
    cfg['load_from'] = 'other.pth'
    files(good, config_text(cfg))
    main(['diagnose', 'x.pth', '--text', '--images', '20'])
    main(['export', 'x.pth', '--to', 'safetensors'])


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (dict(type='os.system'), "type='os.system'"),
        (dict(_scope_='evil'), "_scope_='evil'"),
        (dict(no_such_option=1), 'does not say how its encoder is built'),
        (['x'], 'does not say how its encoder is built'),
        (ELSEWHERE, None),
    ],
)
def test_folders_of_the_hub(arguments, said):
    export_model(encoder('resnet'), 'hf', 'folder')
    with open('folder/config.json') as file:
        content = json.load(file)
    if isinstance(arguments, dict):
        arguments = (content.get('model_args') or {}) | arguments
    with open('folder/config.json', 'w') as file:
        json.dump(content | dict(model_args=arguments), file)
    if said is None:
        main(['import', 'folder'])
        return
    with pytest.raises(SystemExit) as stop:
        main(['import', 'folder'])
    assert said in str(stop.value)


def test_registries_import_nothing():
    for registry in ALL:
        for name in ('evil', 'evil.Class', 'evil.registry', 'os.system', 'mmkernel.evil', 'os'):
            with pytest.raises(KeyError, match='is not registered'):
                registry.build(dict(type=name))


def test_texts_of_our_own_files_are_read(repository):
    for path in (repository / 'mmkernel/weights').glob('*.safetensors'):
        load(path)
        assert 'model' in read_checkpoint(path)['meta']['config']
