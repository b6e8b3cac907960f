"""Every door that opens a file, with every kind of hostile and damaged file.

Nothing in a file runs, nothing is written outside the folder of the command, nothing ends in a traceback: an error of ours
through Python, one line and an exit code at the command line. Each door meets a kind here, a
ninth of them with -m slow, and all with CORPUS_EVERY=1 in the environment.
"""

import importlib
import json
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import traceback
import zipfile
import zlib
from pathlib import Path
from unittest import mock

import hostile_files as corpus
import numpy as np
import pytest
import timm
import torch
from exported import encoder
from safetensors.torch import save

from mmkernel import limits
from mmkernel.cli import main
from mmkernel.datasets import ImageFolder, NpzPack, Parquet, TarShards
from mmkernel.engine import load_checkpoint, load_config
from mmkernel.evaluation import sample_cloud, save_cloud, untrained_encoder
from mmkernel.evaluation.feature_cache import stored
from mmkernel.zoo import catalogue, export_model, hub, load, load_file, opening, publish, read_checkpoint, read_metafile
from mmkernel.zoo.download import _unpack
from mmkernel.zoo.metafile import ModelInfo, WeightsFile
from mmkernel.zoo.network_options import SHAPE

TINY = """_base_ = ['configs/sfrik/digits_L3.py']
model = dict(backbone=dict(channels=(4, 4, 4, 4)), neck=dict(dims=(16, 16)))
train_cfg = dict(max_epochs=1)
train_dataloader = dict(num_batch_per_epoch=2, batch_size=16, num_workers=0, persistent_workers=False)
"""
FORBIDDEN = ('os.system', 'os.exec', 'os.spawn', 'socket.connect', 'socket.getaddrinfo')
watched: list[str] | None = None


def watch(event, arguments):
    if watched is not None and (event in FORBIDDEN or (event == 'subprocess.Popen' and 'touch' in arguments[1])):
        watched.append(f'{event} {arguments}'[:200])


sys.addaudithook(watch)


@pytest.fixture(scope='module')
def made(tmp_path_factory, repository):
    """A folder with a config, a run, a published file, an encoder of the hub, a pack and a cloud, and the corpus from them."""
    folder = tmp_path_factory.mktemp('good')
    (folder / 'tiny.py').write_text(TINY)
    cfg = load_config(folder / 'tiny.py')
    main(['train', str(folder / 'tiny.py'), '--work-dir', str(folder / 'run')])
    run = torch.load(folder / 'run/epoch_1.pth', weights_only=True)
    return folder, cfg, run


def written(folder, files):
    """{kind: path} of {kind: (ending, bytes)}."""
    folder.mkdir()
    found = {}
    for k, (kind, (ending, content)) in enumerate(files.items()):
        found[kind] = folder / f'{k}{ending}'
        found[kind].write_bytes(content)
    return found


@pytest.fixture(scope='module')
def checkpoints(made):
    return written(made[0] / 'checkpoints', corpus.checkpoints(made[2]))


@pytest.fixture(scope='module')
def parts(made):
    return written(made[0] / 'parts', corpus.parts_of_a_run(made[2]))


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch, made):
    """The working folder of a command; afterwards nothing in a file has run, and nothing lies beside this folder."""
    global watched
    (tmp_path / 'work').mkdir()
    monkeypatch.chdir(tmp_path / 'work')
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path / 'work/home'))
    monkeypatch.setattr(limits, 'SMALL', corpus.BOMB // 4)
    kept, watched = listing(made[0]), []
    yield tmp_path / 'work'
    seen, watched = watched, None
    assert not seen
    assert os.listdir(tmp_path) == ['work']
    assert corpus.MARK not in os.listdir()
    assert listing(made[0]) == kept


def listing(folder):
    return sorted(os.listdir(folder)), [sorted(os.listdir(each)) for each in folder.iterdir() if each.is_dir()]


def command(*words):
    """The one line with which the command ends."""
    return ending(lambda: main([str(word) for word in words]))


def script(name, *words):
    """The one line with which a script of tools/benchmarks ends."""
    path = Path(__file__).parents[2] / f'tools/benchmarks/{name}.py'

    def call():
        with mock.patch.object(sys, 'argv', [name, *map(str, words)]):
            runpy.run_path(str(path), run_name='__main__')

    return ending(call)


def ending(call):
    def run(capsys):
        with pytest.raises(SystemExit) as stop:
            call()
        output = capsys.readouterr()
        assert stop.value.code not in (None, 0)
        said = stop.value.code if isinstance(stop.value.code, str) else output.err.strip().splitlines()[-1]
        assert len(said.strip().splitlines()) == 1, said
        assert 'Traceback' not in output.err + said
        assert 'MMKERNEL_TRACEBACK' not in said, said  # the mark of an error that is not ours
        return said

    return run


def call(function):
    """The message of the error of ours that ``function()`` ends with."""

    def run(capsys):
        with pytest.raises(Exception) as stop:  # noqa: PT011
            function()
        check_ours(stop.value)
        return str(stop.value)

    return run


def check_ours(error):
    """A class of ours, or a plain one raised by a line of ours with words of its own."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    plain = type(error) in (ValueError, FileNotFoundError) and 'mmkernel' in Path(last.filename).parts
    assert type(error).__module__.startswith('mmkernel') or plain, repr(error)
    assert len(str(error).splitlines()) == 1, str(error)


def through_get_model(path, cfg, monkeypatch):
    monkeypatch.setattr(hub, 'download', lambda *_, **__: path)
    monkeypatch.setattr(hub, 'model_info', lambda _: ModelInfo('x', 'X', 'x.py'))
    monkeypatch.setattr(hub, '_file', lambda *_: WeightsFile('x'))
    monkeypatch.setattr(hub, 'config_of', lambda _: cfg)
    return call(lambda: hub.get_model('x'))


def benchmark(name, *more):
    return lambda path, config, cfg, patch: command(name, config, path, '--no-cache', '--out', 'x.json', *more)


def trained(name, *more):
    return lambda path, config, cfg, patch: command(name, config, path, *more)


DOORS = {
    'diagnose': lambda path, config, cfg, patch: command('diagnose', path, '--text', '--config', config),
    'diagnose, its config': lambda path, config, cfg, patch: command('diagnose', path, '--text'),
    'export': lambda path, config, cfg, patch: command('export', path, '--to', 'timm', '--out', 'x.safetensors'),
    'export, config': lambda path, config, cfg, patch: command(
        'export', path, '--to', 'safetensors', '--out', 'x.safetensors', '--config', config
    ),
    'publish': lambda path, config, cfg, patch: command('publish', path, '--name', 'x', '--config', config),
    'import': lambda path, config, cfg, patch: command('import', path, '--out', 'x.safetensors'),
    **{
        f'import, {layout}': lambda path, config, cfg, patch, layout=layout: command(
            'import', path, '--from', layout, '--config', config, '--out', 'x.safetensors'
        )
        for layout in opening.layouts()
    },
    'import, a network': lambda path, config, cfg, patch: command('import', path, '--arch', 'resnet18', '--out', 'x.safetensors'),
    'train --resume': lambda path, config, cfg, patch: command('train', config, '--resume', path, '--work-dir', 'run'),
    'load_from': lambda path, config, cfg, patch: command(
        'train', config, '--work-dir', 'run', '--cfg-options', f'load_from={path}'
    ),
    'knn': benchmark('knn'), 'linear': benchmark('linear'), 'transfer': benchmark('transfer', '--sets', 'digits'),
    'transformation': benchmark('transformation'), 'neck': benchmark('knn', '--stage', 'neck'),
    'export, a detector': lambda path, config, cfg, patch: command(
        'export', path, '--to', 'detectron2', '--out', 'x.pkl', '--config', config
    ),
    'features': lambda path, config, cfg, patch: command(
        'features', path, '--config', config, '--no-cache', '--out', 'x.npz'
    ),
    'knn, its config': lambda path, config, cfg, patch: command('knn', path, '--no-cache', '--out', 'x.json'),
    'classify': trained('classify', '--protocol', 'linear_digits', '--out', 'out'),
    'classify --test-only': trained('classify', '--protocol', 'linear_digits', '--test-only'),
    'semi': trained(
        'semi', '--protocol', 'semi_digits', '--seeds', '0', '--per-class', '1', '--out', 'out'
    ),
    'load': lambda path, config, cfg, patch: call(lambda: load(path, cfg)),
    'load, itself': lambda path, config, cfg, patch: call(lambda: load(path)),
    'load_file': lambda path, config, cfg, patch: call(lambda: load_file(untrained_encoder(cfg).backbone, path)),
    'load_checkpoint': lambda path, config, cfg, patch: call(lambda: load_checkpoint(untrained_encoder(cfg), path)),
    'get_model': lambda path, config, cfg, patch: through_get_model(path, cfg, patch),
}  # fmt: skip
FAKE = dict(
    meta={}, state_dict=dict(a=torch.zeros(100), b=torch.zeros(3)), optimizer=dict(state={}, param_groups=[]), message_hub={},
    random_states=[{}], param_schedulers=[0],
)  # fmt: skip
KINDS, PARTS = list(corpus.checkpoints(FAKE)), list(corpus.parts_of_a_run(FAKE))
EVERY = int(os.environ.get('CORPUS_EVERY', 9))


def pairs(doors, kinds, fast, every=1):
    """Doors with kinds: one pair of so many in the fast tests, of ``every`` so many in the slow ones."""
    return [
        pytest.param(door, kind, marks=() if (i + j) % fast == 0 else pytest.mark.slow)
        for i, door in enumerate(doors) for j, kind in enumerate(kinds) if (i + j) % every == 0
    ]  # fmt: skip


@pytest.mark.parametrize(('door', 'kind'), pairs(DOORS, KINDS, 9 * 10, EVERY))
def test_a_file_of_weights(door, kind, made, checkpoints, monkeypatch, capsys):
    folder, cfg, _ = made
    DOORS[door](checkpoints[kind], folder / 'tiny.py', cfg, monkeypatch)(capsys)


@pytest.mark.parametrize(
    'kind', [pytest.param(kind, marks=() if k % 7 == 0 else pytest.mark.slow) for k, kind in enumerate(PARTS)]
)
def test_a_run_goes_on_from_no_other_parts(kind, made, parts, capsys):
    said = DOORS['train --resume'](parts[kind], made[0] / 'tiny.py', None, None)(capsys)
    assert any(words in said for words in ('cannot be resumed', 'weights only', 'was trained', 'checkpoint of shards'))


@pytest.fixture(scope='module')
def published(made):
    folder, cfg, _ = made
    main(['export', str(folder / 'run/epoch_1.pth'), '--to', 'safetensors', '--out', str(folder / 'x.safetensors')])
    return written(folder / 'safetensors', corpus.safetensors((folder / 'x.safetensors').read_bytes()))


HEADERS = list(corpus.safetensors(save(dict(a=torch.zeros(2), b=torch.zeros(2)))))
WITH_HEADER = [
    'export', 'publish', 'import', 'import, hf', 'load_from', 'train --resume', 'knn', 'load, itself', 'load_file',
    'get_model',
]  # fmt: skip


@pytest.mark.parametrize(('door', 'kind'), pairs(WITH_HEADER, HEADERS, 9))
def test_a_header(door, kind, made, published, monkeypatch, capsys):
    DOORS[door](published[kind], made[0] / 'tiny.py', made[1], monkeypatch)(capsys)


GOOD_PACK = dict(
    train_jpeg=np.frombuffer(corpus.image('PNG', (4, 4)), np.uint8), train_label=np.zeros(1, int), classes=np.array(['a']),
    train_off=np.array([0, len(corpus.image('PNG', (4, 4)))]),
)  # fmt: skip
PACK_DOORS = dict(
    source=lambda path: call(lambda: NpzPack(str(path)).read(0)), check=lambda path: command('data', 'check', path),
    test=lambda path: command('data', 'check', "dict(type='Digits')", '--test', path, '--limit', '1'),
)  # fmt: skip
PACKS = corpus.packs(corpus.npz(**GOOD_PACK), 'train_jpeg', 'train_off')


@pytest.mark.parametrize(('door', 'kind'), pairs(PACK_DOORS, PACKS, 3))
def test_a_pack(door, kind, place, capsys):
    Path('x.npz').write_bytes(PACKS[kind])
    PACK_DOORS[door]('x.npz')(capsys)


@pytest.fixture(scope='module')
def clouds(made):
    folder, cfg, run = made
    model = untrained_encoder(cfg)
    load_checkpoint(model, folder / 'run/epoch_1.pth')
    path = save_cloud(sample_cloud(model, cfg, 8), folder / 'cloud.npz')
    return written(
        folder / 'clouds', {k: ('.npz', v) for k, v in corpus.packs(path.read_bytes(), 'h', 'index').items()}
    )


@pytest.mark.parametrize(
    'kind', [pytest.param(k, marks=() if i % 6 == 0 else pytest.mark.slow) for i, k in enumerate(PACKS)]
)
def test_saved_embeddings(kind, made, clouds, capsys):
    path = made[0] / 'run/epoch_1.pth'
    command('diagnose', path, '--text', '--embeddings', clouds[kind], '--config', made[0] / 'tiny.py')(capsys)


IMAGES = corpus.images()


@pytest.mark.parametrize('kind', IMAGES)
def test_an_image(kind, place, capsys):
    """Some are images still; what is none is said by its name, and no other image is lost."""
    ending, content = IMAGES[kind]
    Path('images').mkdir()
    Path(f'images/bad{ending}').write_bytes(content)
    Path('images/good.png').write_bytes(corpus.image('PNG', (4, 4)))
    source = ImageFolder('images', extensions=('.png', ending))
    try:
        said = str(source.pixels(0).dtype)
    except (ValueError, TypeError) as error:
        check_ours(error)
        said = str(error)
    assert said == 'uint8' or 'bad' in said
    assert not kind[0].isdigit() or 'MMKERNEL_MAX_PIXELS' in command_output(capsys, ending)


def command_output(capsys, ending):
    with pytest.raises(SystemExit) as stop:
        main(
            [
                'data',
                'check',
                f"dict(type='ImageFolder', root='images', extensions=('.png', '{ending}'))",
                '--json',
                '--workers',
                '0',
            ]
        )
    assert stop.value.code == 1
    found = json.loads(capsys.readouterr().out)['sets']['train']
    assert list(found['unreadable']) == [f'images/bad{ending}']
    assert found['sides']['height']['max'] == 4
    return str(found['unreadable'])


RECORDS = {
    f'a/{k}.{ending}': data for k in (0, 1) for ending, data in (('png', corpus.image('PNG', (4, 4))), ('cls', b'1'))
}
SHARDS = corpus.shards(RECORDS)


@pytest.mark.parametrize('kind', SHARDS)
def test_a_shard(kind, place, capsys):
    """Links and devices are left out, names are never paths; the rest is refused."""
    Path('x.tar').write_bytes(SHARDS[kind])
    try:
        source = TarShards('x.tar')
        for i in range(len(source)):
            source.pixels(i)
    except (ValueError, FileNotFoundError) as error:
        check_ours(error)
        command('data', 'check', 'x.tar', '--workers', '0')(capsys)


@pytest.mark.parametrize('inside', ['.', 'folder'])
def test_an_archive_of_a_folder_is_read_like_one_of_its_files(inside, place):
    """``tar cf x.tar .`` writes '.', './a' and './a/0.png'; what a Mac adds beside the weights is none."""
    for name, data in {**RECORDS, 'model.pth': b'weights', '._model.pth': b'of a Mac'}.items():
        Path('folder', name).parent.mkdir(parents=True, exist_ok=True)
        Path('folder', name).write_bytes(data)
    for name, mode in (('x.tar', 'w'), ('x.tar.gz', 'w:gz')):
        with tarfile.open(name, mode) as archive:
            archive.add('folder', inside)
    source = TarShards('x.tar')
    assert sorted(name.removeprefix('folder/') for name in source.file_names()) == ['a/0.png', 'a/1.png']
    assert source.labels.tolist() == [1, 1] or source.classes == ['1']
    _unpack(Path('x.tar.gz'), Path('out.pth'), 'x')
    assert Path('out.pth').read_bytes() == b'weights'


ARCHIVES = corpus.archives(b'weights' * 100)


@pytest.mark.parametrize('kind', ARCHIVES)
def test_an_archive_of_weights(kind, place, capsys):
    Path('x.tar.gz').write_bytes(ARCHIVES[kind])
    call(lambda: _unpack(Path('x.tar.gz'), Path('out.pth'), 'x'))(capsys)
    assert not Path('out.pth').exists() or Path('out.pth').stat().st_size < 2000


ROW = {'Name': 'x', 'In Collection': 'X', 'Config': 'configs/x/a.py', 'Metadata': {'Epochs': 1}}
METAFILES = corpus.metafiles({'Collections': [{'Name': 'X'}], 'Models': [ROW]})


@pytest.mark.parametrize('kind', METAFILES)
def test_a_metafile(kind, place, monkeypatch, capsys):
    path = Path('configs/x/metafile.yml')
    path.parent.mkdir(parents=True)
    path.write_text(METAFILES[kind])
    monkeypatch.setattr(catalogue, 'root', Path.cwd)
    said = call(lambda: read_metafile(path))(capsys)
    assert call(lambda: publish.add_row(path, dict(ROW, Name='y')))(capsys) == said
    assert path.read_text() == METAFILES[kind]
    for words in (['list'], ['info', 'x'], ['download', 'x'], ['verify']):
        assert said in command('zoo', *words)(capsys)


PINS = ['[]', '3', '{"a": 1}', '{"a": {"sha256": 1, "date": 2}}', '{"a": {}}', '[' * 5000, '{', 'null', '"x"']


@pytest.mark.parametrize('text', PINS)
def test_hashes_of_first_use(text, place, capsys):
    Path('home').mkdir()
    Path('home/pins.json').write_text(text)
    assert 'delete it to pin anew' in command('zoo', 'verify')(capsys)


@pytest.fixture(scope='module')
def hub_folder(made):
    torch.manual_seed(0)
    export_model(encoder('resnet'), 'hf', made[0] / 'hub')
    return made[0] / 'hub'


OPTIONS = dict(
    file='x.pth', url='https://example.invalid/x', hf_hub_id='timm/resnet18', hf_hub_filename='x', pretrained_model_args={},
    pretrained_cfg_variant='x', cfg='x', block='os.system', embed_layer='os.system', kwargs_filter=['x'], features_only=True,
    model_cfg='x', feature_cfg=dict(a=1), pretrained_strict=False, pretrained_filter_fn='os.system', scriptable=True, device='meta',
    act_layer='os.system', norm_layer=dict(a=1), channels=dict(a=1), checkpoint='x', state_dict='x', custom_load=True,
)  # fmt: skip
NAMES = [
    'hf-hub:timm/resnet18',
    'local-dir:.',
    'hf_hub:timm/resnet18',
    'https://example.invalid/x',
    '../x',
    3,
    None,
    ['resnet18'],
]
CONFIGS = {
    **{f'model_args {key}': dict(model_args={key: value}) for key, value in OPTIONS.items()},
    **{f'architecture {name}': dict(architecture=name) for name in NAMES},
    **{f'{key}: {value}': {key: value} for key in ('model_args', 'pretrained_cfg') for value in (3, 'x', [1], [[1, 2, 3]])},
    **{
        f'pretrained_cfg.{key}: {value}': dict(pretrained_cfg={key: value})
        for key in ('input_size', 'mean', 'std', 'crop_pct', 'interpolation') for value in (0, 'x', [], [0], -1, 1e400, dict(a=1))
    },
}  # fmt: skip
HARMLESS = ('pretrained_cfg.mean', 'pretrained_cfg: ', 'model_args: [[')


@pytest.mark.parametrize('kind', CONFIGS)
def test_a_folder_of_the_hub(kind, made, hub_folder, place, capsys, monkeypatch):
    """Nothing in config.json opens a file or an address: timm gets the shape of a network, from a list of what may be told."""
    given = []
    monkeypatch.setattr(
        timm, 'create_model', lambda name, real=timm.create_model, **more: given.append(more) or real(name, **more)
    )
    shutil.copytree(hub_folder, 'hub')
    content = json.loads(Path('hub/config.json').read_text())
    for key, value in CONFIGS[kind].items():
        both = isinstance(value, dict) and isinstance(content.get(key), dict)
        content[key] = {**content[key], **value} if both else value
    Path('hub/config.json').write_text(json.dumps(content))
    said = 'how its encoder is built'  # or it is built
    if kind.startswith(HARMLESS):
        try:
            main(['import', 'hub', '--out', 'x.safetensors'])
        except SystemExit as stop:
            said = str(stop.code)
    else:
        command('import', 'hub', '--from', 'hf', '--out', 'x.safetensors')(capsys)
    assert 'how its encoder is built' in said
    for arguments in given:
        assert not arguments.pop('pretrained')
        assert set(arguments) <= SHAPE | {'num_classes', 'in_chans'}


def test_weights_from_elsewhere_are_left_out_of_a_folder(hub_folder, place, monkeypatch):
    given = []
    monkeypatch.setattr(
        timm, 'create_model', lambda name, real=timm.create_model, **more: given.append(more) or real(name, **more)
    )
    shutil.copytree(hub_folder, 'hub')
    content = json.loads(Path('hub/config.json').read_text())
    content['model_args'] |= dict(
        pretrained=True, checkpoint_path='x.pth', pretrained_cfg=dict(file='x.pth'), cache_dir='.'
    )
    content['pretrained_cfg'] |= dict(file='x.pth', url='https://example.invalid/x', hf_hub_id='timm/x')
    Path('hub/config.json').write_text(json.dumps(content))
    main(['import', 'hub', '--out', 'x.safetensors'])
    assert len(given) >= 1
    assert not any(
        set(each) & {'checkpoint_path', 'pretrained_cfg', 'cache_dir', 'file', 'url'} or each['pretrained']
        for each in given
    )


@pytest.mark.parametrize('header', [
    dict(arrays=dict(offset=['<i8', [10**9], 0])), dict(arrays=dict(offset=['|O', [1], 0])),
    dict(arrays=dict(offset=['<i8', [-1], 0])),
    dict(arrays=[1]), dict(arrays=dict(offset=['<i8', [1], -8])), [1], 'x', dict(bytes='x'), dict(crc32=[1]),
])  # fmt: skip
def test_an_index_beside_shards(header, place):
    """One that lies is made again, with a warning."""
    Path('x.tar').write_bytes(corpus.tar(RECORDS))
    names = list(TarShards('x.tar').file_names())
    (path,) = Path().glob('.mmkernel-*.index')
    good = path.read_bytes()
    begin = good.index(b'\n') + 1
    size = int.from_bytes(good[begin : begin + 8], 'little')
    old = json.loads(good[begin + 8 : begin + 8 + size])
    text = json.dumps(old | header if isinstance(header, dict) else header).encode()
    path.write_bytes(good[:begin] + len(text).to_bytes(8, 'little') + text + good[begin + 8 + size :])
    with pytest.warns(UserWarning, match='is made again'):
        assert list(TarShards('x.tar').file_names()) == names


@pytest.mark.parametrize('kind', ['[]', '3', '{', '[' * 5000, 'objects', 'short', 'huge'])
def test_kept_features(kind, place):
    """An entry of the cache that somebody wrote is computed again."""
    about, compute = dict(images=2), lambda rows, allocate: [
        allocate(name, shape, np.float32).fill(1) for name, shape in (('features', (2, 3)), ('labels', (2,)))
    ]  # fmt: skip
    stored('cache', about, compute)
    (entry,) = Path('cache').iterdir()
    if kind in ('objects', 'short', 'huge'):
        objects = np.empty(2, object)
        objects[:] = corpus.malicious()['os.system']
        content = dict(short=corpus.npy((1, 3), data=bytes(12)), huge=corpus.npy((10**9, 10**9)), objects=b'')[kind]
        (entry / 'features.npy').write_bytes(content)
        if kind == 'objects':
            np.save(entry / 'features.npy', objects, allow_pickle=True)
        sums = {name: zlib.crc32((entry / f'{name}.npy').read_bytes()) for name in ('features', 'labels')}
        (entry / 'about.json').write_text(json.dumps(json.loads((entry / 'about.json').read_text()) | dict(crc32=sums)))
    else:
        (entry / 'about.json').write_text(kind)
    with pytest.warns(UserWarning, match='computed again'):
        features, _ = stored('cache', about, compute)
    assert torch.equal(features, torch.ones(2, 3))


@pytest.mark.parametrize('name', ['done.json', 'row.json', 'x.json'])
@pytest.mark.slow
@pytest.mark.parametrize('text', ['[]', '3', '{', '[' * 5000, ''])
def test_what_a_comparison_has_kept(name, text, made, place, repository, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(repository / 'tools/benchmarks'))
    config = made[0] / 'tiny.py'
    folder = place / 'out' / config.parent.name / 'tiny/0'
    folder.mkdir(parents=True)
    run = importlib.import_module('side_by_side').Run('x', config, folder)
    run._record(1.0)
    (folder / 'row.json').write_text('{}')
    (place / 'x.json').write_text('{"rows": [], "config": []}')
    (place if name == 'x.json' else folder).joinpath(name).write_text(text)
    words = (
        '--configs',
        config,
        '--seeds',
        '0',
        '--out',
        place / 'out',
        '--json',
        'x.json',
        '--page',
        'x.md',
        '--keep',
    )
    assert 'is damaged' in script('compare', *words)(capsys)


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['[1]', '{', 'a file of weights'])
def test_what_a_study_has_kept(kind, made, checkpoints, place, repository, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(repository / 'tools/benchmarks'))
    choice, folder = importlib.import_module('checkpoint_choice'), place / 'out/digits/sfrik/digits_L1'
    recipe = choice.many_checkpoints('sfrik/digits_L1', 2, folder)
    (folder / 'run').mkdir()
    choice.Run('x', recipe, folder / 'run')._record(1.0)
    shutil.copy(checkpoints['zip: os.system'], folder / 'run/epoch_2.pth')
    if kind[0] != 'a':
        (folder / 'rows.json').write_text(kind)
    words = (
        '--methods',
        'sfrik/digits_L1',
        '--out',
        place / 'out',
        '--finished',
        'none',
        '--page',
        'x',
        '--json',
        'x',
    )
    script('checkpoint_choice', *words)(capsys)
    assert not Path('x').exists()


LISTS = {
    'json': ['[', '[[[]]]', '3', '[' * 5000, '[{"file": 1}]', 'null'],
    'txt': ['', '\0', '../../x', '/etc/passwd', '\ud800'],
}


@pytest.mark.parametrize(('ending', 'text'), [(ending, text) for ending, texts in LISTS.items() for text in texts])
def test_a_list_of_images(ending, text, place, capsys):
    Path('images').mkdir()
    Path('images/a.png').write_bytes(corpus.image('PNG'))
    Path(f'x.{ending}').write_bytes(text.encode('utf-8', 'surrogatepass'))
    command('data', 'check', f"dict(type='ImageList', names='x.{ending}', root='images')")(capsys)


def test_parquet(place, capsys):
    parquet, table = pytest.importorskip('pyarrow.parquet'), pytest.importorskip('pyarrow').table
    parquet.write_table(table(dict(image=[corpus.image('PNG')] * 3, label=[0, 1, 1])), 'good.parquet')
    good, draw = Path('good.parquet').read_bytes(), random.Random(0)
    changed = [good[:cut] for cut in (0, 4, 100, len(good) // 2, -1)]
    for _ in range(40):
        at = draw.randrange(len(good))
        changed.append(good[:at] + bytes([draw.randrange(256)]) + good[at + 1 :])
    for content in changed:
        Path('x.parquet').write_bytes(content)
        try:
            source = Parquet('x.parquet')
            for i in range(len(source)):
                source.pixels(i)
        except (ValueError, FileNotFoundError) as error:
            check_ours(error)
        os.utime('x.parquet', ns=(draw.randrange(10**18),) * 2)  # a file that was opened is kept by its time of change
    Path('x.parquet').unlink()


@pytest.mark.parametrize('kind', ['pack', 'checkpoint', 'archive'])
def test_a_limit_can_be_raised_as_the_error_says(kind, place, monkeypatch):
    Path('x.npz').write_bytes(PACKS['bomb'])
    Path('x.pth').write_bytes(corpus.zipped_storages(corpus.BOMB))
    Path('x.tar.gz').write_bytes(ARCHIVES['bomb'])
    opened = dict(
        pack=lambda: limits.check_npz('x.npz'), checkpoint=lambda: read_checkpoint('x.pth'),
        archive=lambda: _unpack(Path('x.tar.gz'), Path('out.pth'), 'x'),
    )[kind]  # fmt: skip
    with pytest.raises((ValueError, RuntimeError)) as stop:
        opened()
    monkeypatch.setenv(*re.search(r'(MMKERNEL_MAX_\w+)=(\d+)', str(stop.value)).groups())
    opened()


def test_the_limit_of_pixels_can_be_raised(place, monkeypatch):
    Path('images').mkdir()
    Path('images/a.png').write_bytes(corpus.image('PNG', (50, 40)))
    monkeypatch.setenv('MMKERNEL_MAX_PIXELS', '1999')
    with pytest.raises(ValueError, match='MMKERNEL_MAX_PIXELS=2000 in the environment'):
        ImageFolder('images').pixels(0)
    for limit in ('2000', 'inf'):
        monkeypatch.setenv('MMKERNEL_MAX_PIXELS', limit)
        assert ImageFolder('images').pixels(0).shape == (40, 50, 3)
    monkeypatch.setenv('MMKERNEL_MAX_PIXELS', 'many')
    with pytest.raises(ValueError, match="MMKERNEL_MAX_PIXELS='many'"):
        ImageFolder('images').pixels(0)


def test_what_is_stored_as_it_is_has_no_limit(place):
    """A checkpoint is as large as it is: the limit is on what comes out of few bytes."""
    torch.save(dict(a=torch.zeros(corpus.BOMB // 2)), 'x.pth')
    assert read_checkpoint('x.pth')['a'].numel() == corpus.BOMB // 2


BOMBS = """
import resource
from pathlib import Path
from unittest import mock
from mmkernel.datasets import ImageFolder, NpzPack
from mmkernel.zoo import read_checkpoint
from mmkernel.zoo.download import _unpack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for open_it in (
    lambda: read_checkpoint('x.pth'), lambda: NpzPack('x.npz'), lambda: _unpack(Path('x.tar.gz'), Path('out.pth'), 'x'),
    lambda: ImageFolder('png').pixels(0), lambda: ImageFolder('npy', extensions='.npy').pixels(0),
):
    try:
        open_it()
    except (ValueError, RuntimeError) as error:
        print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_bombs_take_no_memory(place):
    """1 MB that takes 1.5 GB, 2.7 MB that unpack to 629 MB, a 1-bit image of 13 000 x 13 000, an array of 300 TB."""
    Path('x.pth').write_bytes(corpus.zipped_storages(1500 * 10**6))
    with zipfile.ZipFile('x.npz', 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, array in GOOD_PACK.items():
            with file.open(f'{name}.npy', 'w') as member:
                np.lib.format.write_array(member, np.zeros(629 * 10**6, np.uint8) if name == 'train_jpeg' else array)
    with tarfile.open('x.tar.gz', 'w:gz', compresslevel=1) as archive:
        info = tarfile.TarInfo('model.pth')
        info.size = 629 * 10**6
        archive.addfile(info, corpus.Zeros())
    for name in ('1 bit, 13 000 x 13 000', 'a huge array'):
        ending, content = IMAGES[name]
        Path(ending[1:]).mkdir()
        Path(f'{ending[1:]}/x{ending}').write_bytes(content)
    done = subprocess.run([sys.executable, '-c', BOMBS], capture_output=True, text=True, timeout=300, check=True)
    *said, megabytes = done.stdout.strip().splitlines()
    assert [line.split()[0] for line in said] == [
        'CheckpointError',
        'LimitError',
        'ArchiveError',
        *['CorruptImageError'] * 2,
    ]
    assert ['MMKERNEL_MAX' in line for line in said] == [True] * 4 + [False]
    assert int(megabytes) < 100
