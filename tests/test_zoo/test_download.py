"""Downloads against a server that drops, truncates, corrupts, redirects, stalls, and answers 404, 429 and web pages."""

import errno
import hashlib
import importlib
import io
import multiprocessing
import os
import shutil
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pooch
import pytest
from filelock import FileLock

from mmkernel.zoo.catalogue import weights_folder
from mmkernel.zoo.download import download
from mmkernel.zoo.files import DiskFullError
from mmkernel.zoo.metafile import ModelInfo, Part, WeightsFile
from mmkernel.zoo.pins import DownloadError, HashMismatchError, clean, verify

sys.path.insert(0, str(Path(__file__).parent))
from fault_server import BODY, fault_server  # noqa: E402

SHA = hashlib.sha256(BODY).hexdigest()
downloads = importlib.import_module('mmkernel.zoo.mirrors')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path / 'home'))
    monkeypatch.delenv('MMKERNEL_OFFLINE', raising=False)
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / 'home'


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """Three attempts without their pauses, which are listed."""
    found = []
    monkeypatch.setattr(downloads, 'RETRIES', 2)
    monkeypatch.setattr(downloads, 'TIMEOUT', 0.4)
    monkeypatch.setattr(pooch.core, 'time', SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def server():
    with fault_server() as found:
        yield found


def row(*urls, **known):
    file = WeightsFile('net.pth', urls, **known)
    return ModelInfo('some_model', 'Some', None, files=(file,), note='x')


def fetch(*urls, **known):
    return download(row(*urls, **known))


@pytest.mark.parametrize('plan', [
    ['fine'], ['drop:100000', 'fine'], ['drop:100000', 'drop:90000', 'fine'], ['drop:0', 'fine'],
    ['no_length'], ['no_length:0', 'fine'], ['status:503', 'fine'], ['status:429', 'fine'],
    ['status:500', 'status:502', 'fine'], ['stall:1', 'fine'],
])  # fmt: skip
def test_what_passes_is_outlived(cache, server, plan, pauses):
    url, faults = server
    faults.plan['/a'] = plan
    path = fetch(f'{url}/a', sha256=SHA)
    assert path == weights_folder() / 'some_model/net.pth'
    assert path.read_bytes() == BODY
    assert faults.seen == ['/a'] * len(plan)
    assert pauses == [1, 2][: len(plan) - 1]
    assert [p.name for p in path.parent.iterdir() if p.suffix != '.lock'] == ['net.pth']
    (path.parent / 'other').touch()
    assert path.stat().st_mode == (path.parent / 'other').stat().st_mode  # as readable as any file


def test_a_truncated_body_is_never_taken_for_the_file(cache, server):
    url, faults = server
    faults.plan['/a'] = ['drop:200000']
    with pytest.raises(DownloadError, match=r'the connection broke off: .*200000 bytes read.* \(3 attempts\).*by hand'):
        fetch(f'{url}/a')
    faults.plan['/zip'] = ['no_length:1000']
    faults.bodies['/zip'] = b'PK' + BODY  # as torch.save begins
    with pytest.raises(DownloadError, match='1000 bytes came, of a length that the server does not say'):
        fetch(f'{url}/zip')
    assert not [p.name for p in (weights_folder() / 'some_model').iterdir() if p.suffix not in ('.lock', '.failed')]
    faults.plan['/a'] = ['fine']
    assert fetch(f'{url}/a').read_bytes() == BODY  # another process, another day


def test_the_next_mirror_serves(cache, server):
    url, faults = server
    plans = dict(gone=['status:404'], page=['page'], bad=['corrupt'], shut=['status:403'], busy=['status:503'])
    faults.plan = {f'/{name}': plan for name, plan in plans.items()}
    path = fetch(*(f'{url}/{name}' for name in plans), f'{url}/good', sha256=SHA[:8])
    assert path.read_bytes() == BODY
    assert faults.seen == [
        '/gone',
        '/page',
        '/bad',
        '/shut',
        *['/busy'] * 3,
        '/good',
    ]  # only what may pass is asked again


def test_when_no_mirror_serves_a_person_can(cache, server):
    url, faults = server
    faults.plan = {'/gone': ['status:404'], '/page': ['page']}
    with pytest.raises(DownloadError) as error:
        fetch(f'{url}/gone', f'{url}/page')
    text = str(error.value)
    assert 'HTTP 404' in text
    assert 'a web page came in place of weights' in text
    assert f'Download {url}/gone by hand and put the file at {weights_folder() / "some_model/net.pth"}' in text


def test_redirects_to_plain_http_elsewhere_are_refused(cache, server):
    url, faults = server
    faults.plan = {'/a': [f'to:{url}/b'], '/c': ['to:http://example.invalid/x'], '/d': ['to:file:///etc/passwd']}
    assert fetch(f'{url}/a', sha256=SHA).read_bytes() == BODY
    clean()
    for name in 'cd':
        with pytest.raises(DownloadError, match='expected an https URL'):
            fetch(f'{url}/{name}')
        assert faults.seen[-2:] != [f'/{name}'] * 2  # no reason to ask again


def test_no_network(cache, server):
    url, _ = server
    with pytest.raises(DownloadError, match=r'no connection: .*3 attempts.*by hand'):
        fetch('http://127.0.0.1:9/a')


def test_proxies_are_respected(cache, server, monkeypatch):
    url, faults = server
    monkeypatch.setenv('http_proxy', url)
    monkeypatch.setenv('no_proxy', '')
    fetch('http://localhost:1/through', sha256=SHA)
    assert faults.seen == ['http://localhost:1/through']


def test_wrong_bytes_are_kept_aside_and_never_used(cache, server):
    url, faults = server
    faults.plan['/a'] = ['corrupt']
    for known in (dict(sha256=SHA), dict(sha256=SHA[:8]), dict(md5=hashlib.md5(BODY).hexdigest()[:8])):
        with pytest.raises(HashMismatchError, match=r'is published.*set aside as .*rejected-'):
            fetch(f'{url}/a', **known)
    folder = weights_folder() / 'some_model'
    assert not (folder / 'net.pth').exists()
    assert len(list(folder.glob('net.pth.rejected-*'))) == 1
    with pytest.raises(HashMismatchError, match='has 524288 bytes; 7 are published'):
        fetch(f'{url}/b', size=7)


def test_pinned_on_first_use(cache, server, capfd):
    url, faults = server
    fetch(f'{url}/a')
    assert 'pinned on first use' in capfd.readouterr().err
    assert [(v.fine, v.name) for v in verify(['sfrik_r50_L3_q32768_200e'])] == []
    clean_folder()
    faults.bodies['/a'] = BODY[::-1]
    with pytest.raises(HashMismatchError, match='none is published'):
        fetch(f'{url}/a')


def clean_folder():
    shutil.rmtree(weights_folder())


def test_what_is_there_is_used_and_what_was_put_there_by_hand_is_checked(cache, server, monkeypatch):
    url, faults = server
    path = weights_folder() / 'some_model/net.pth'
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    monkeypatch.setenv('MMKERNEL_OFFLINE', '1')
    assert fetch(f'{url}/a', sha256=SHA) == path
    path.write_bytes(b'something else')
    with pytest.raises(HashMismatchError, match='set aside'):
        fetch(f'{url}/a', sha256=SHA)
    with pytest.raises(DownloadError, match=r'MMKERNEL_OFFLINE forbids.* by hand'):
        fetch(f'{url}/a', sha256=SHA)
    monkeypatch.delenv('MMKERNEL_OFFLINE')
    path.write_bytes(b'something else')
    assert fetch(f'{url}/a', sha256=SHA).read_bytes() == BODY  # fetched anew
    assert len(faults.seen) == 1


def test_a_full_disk(cache, server, monkeypatch):
    url, faults = server
    usage = shutil.disk_usage(cache.parent)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))
        with pytest.raises(DiskFullError, match=r'0\.5 MB more are needed, 0\.0 MB are free.*MMKERNEL_HOME'):
            fetch(f'{url}/a')

    def full(self, url, *_):  # at the last moment
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(pooch.HTTPDownloader, '__call__', full)
    with pytest.raises(DiskFullError, match='is full: more is needed'):
        fetch(f'{url}/a')
    assert not list(cache.rglob('.arriving*'))


def test_a_cache_of_someone_else(cache, server, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, 'Permission denied', str(self))

    monkeypatch.setattr(Path, 'mkdir', refuse)
    with pytest.raises(DownloadError, match=r'some_model cannot be written \(Permission denied\): set MMKERNEL_HOME'):
        fetch(f'{server[0]}/a')


def archive(**members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode='w:gz') as tar:
        for name, data in members.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if info is data else len(data)
            tar.addfile(info, None if info is data else io.BytesIO(data))
    return out.getvalue()


def packed(url, faults, data, **known):
    cuts = [data[: len(data) // 3], data[len(data) // 3 : len(data) // 2], data[len(data) // 2 :]]
    faults.bodies = {f'/p{i}': cut for i, cut in enumerate(cuts)}
    parts = tuple(Part(f'p{i}', (f'{url}/p{i}',)) for i in range(3))
    file = WeightsFile('all.tar.gz', parts=parts, unpack='tar.gz', stage='model', **known)
    return ModelInfo('some_model', 'Some', None, files=(file,), note='x')


def test_parts_are_joined_and_unpacked(cache, server):
    url, faults = server
    data = archive(**{'run/last.pth': BODY, 'run/log.txt': b'words'})
    faults.plan['/p1'] = ['drop:100', 'fine']
    info = packed(url, faults, data, sha256=hashlib.sha256(data).hexdigest())
    path = download(info, 'model')
    assert path.name == 'all.pth'
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir() if p.name[0] != '.'] == ['all.pth']


def test_parts_of_a_plain_file_are_joined(cache, server):
    url, faults = server
    faults.bodies = {'/x': BODY[:1000], '/y': BODY[1000:]}
    parts = (Part('x', (f'{url}/x',)), Part('y', (f'{url}/y',)))
    file = WeightsFile('net.pth', parts=parts, sha256=SHA)
    info = ModelInfo('some_model', 'Some', None, files=(file,), note='x')
    assert download(info).read_bytes() == BODY
    wrong = ModelInfo('other', 'Some', None, files=(WeightsFile('net.pth', parts=parts[::-1], sha256=SHA),), note='x')
    with pytest.raises(HashMismatchError, match='join them in this order'):
        download(wrong)


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize('members, said', [
    ({'a.pth': b'x', 'b.pth': b'y'}, 'one file of weights; it contains a.pth, b.pth'),
    ({'readme.txt': b'x'}, 'it contains none that ends in .pth'),
    ({'a.pth': link('a.pth', '/etc/passwd')}, 'it contains none'),
])  # fmt: skip
def test_archives_without_the_one_file(cache, server, members, said):
    url, faults = server
    with pytest.raises(DownloadError, match=said):
        download(packed(url, faults, archive(**members)), 'model')
    assert not list(cache.parent.rglob('evil*'))
    assert {p.suffix[:9] for p in (weights_folder() / 'some_model').glob('[!.]*')} == {'.rejected'}


@pytest.mark.parametrize('name', ['../evil.pth', '/tmp/evil.pth', 'a/../../evil.pth', 'C:\\evil.pth'])
def test_no_name_from_an_archive_comes_to_the_disk(cache, server, name):
    url, faults = server
    members = {name: BODY, 'l': link('l', '/etc/passwd')}
    path = download(packed(url, faults, archive(**members)), 'model')
    assert (path.name, path.read_bytes()) == ('all.pth', BODY)
    assert not list(cache.parent.rglob('*evil*')) + list(Path('/tmp').glob('evil*'))


def test_a_damaged_archive(cache, server):
    url, faults = server
    cut = archive(**{'a.pth': BODY})[:-40] + b'\xff' * 4  # an end that tells a size of gigabytes
    with pytest.raises(DownloadError, match=r'is not a complete \.tar\.gz'):
        download(packed(url, faults, cut), 'model')


def _rank(url, start, queue):
    start.wait()
    queue.put(fetch(f'{url}/a', sha256=SHA).stat().st_size)


def test_eight_ranks_download_once(cache, server):
    url, faults = server
    faults.plan['/a'] = ['drop:300000', 'fine']
    context = multiprocessing.get_context('fork')
    start, queue = context.Event(), context.Queue()
    ranks = [context.Process(target=_rank, args=(url, start, queue)) for _ in range(8)]
    for rank in ranks:
        rank.start()
    start.set()
    assert [queue.get(timeout=20) for _ in ranks] == [len(BODY)] * 8
    for rank in ranks:
        rank.join()
    assert len(faults.seen) == 2  # the dropped one and its continuation


def _refused(url, start, queue):
    start.wait()
    try:
        fetch(f'{url}/a')
    except DownloadError as error:
        queue.put(str(error))


def test_eight_ranks_learn_from_one_that_it_cannot_be_had(cache, server):
    url, faults = server
    faults.plan['/a'] = ['stall:0.3']  # long enough for all of them to ask
    context = multiprocessing.get_context('fork')
    start, queue = context.Event(), context.Queue()
    ranks = [context.Process(target=_refused, args=(url, start, queue)) for _ in range(8)]
    for rank in ranks:
        rank.start()
    start.set()
    answers = {queue.get(timeout=20) for _ in ranks}
    for rank in ranks:
        rank.join()
    assert len(answers) == 1
    assert len(faults.seen) < 8 * 3
    faults.plan['/a'] = ['fine']
    assert fetch(f'{url}/a', sha256=SHA).read_bytes() == BODY  # the next one to ask tries again


def test_files_of_the_package(cache):
    inside = WeightsFile('x.pth', ('package:zoo/__init__.py',))
    assert download(ModelInfo('m', 'S', None, files=(inside,))).name == '__init__.py'
    missing = WeightsFile('x.pth', ('package:weights/none.safetensors',))
    with pytest.raises(DownloadError, match='install mmkernel again'):
        download(ModelInfo('m', 'S', None, files=(missing,)))


def test_a_row_without_such_a_file():
    with pytest.raises(ValueError, match="no file of the stage 'model'; there is: backbone"):
        download(row('https://example.invalid/x'), 'model')


def test_leftovers_are_cleaned_and_pins_stay(cache, server):
    url, _ = server
    path = fetch(f'{url}/a')
    (path.parent / '.arriving-x').mkdir()
    (path.parent / '.arriving-x/net.pth').write_bytes(b'123')
    with FileLock(path.with_name('.other.pth.lock')):  # another process is downloading
        assert clean(leftovers=True) == clean() == (0, [])
    assert clean(leftovers=True) == (3, [path.parent / '.arriving-x'])
    size, removed = clean()
    assert removed == [path.parent]
    assert size >= len(BODY)
    assert os.listdir(weights_folder()) == []
    assert (cache / 'pins.json').is_file()
