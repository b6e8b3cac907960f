"""A corpus of hostile and damaged files: ``{kind: file}``, each of which leaves the mark 'ran' if anything in it is run.

``checkpoints`` (all are refused by every door), ``parts_of_a_run`` (refused by a resume), ``safetensors``, ``packs``, ``images``,
``shards``, ``archives``, ``metafiles``.
"""

import builtins
import copy
import gzip
import io
import json
import os
import pickle
import random
import struct
import subprocess
import tarfile
import zipfile
import zlib

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

MARK = 'ran'
BOMB = 16 * 10**6  # bytes that come out of some kilobytes; the tests set the limit below
TOUCH = f"open('{MARK}', 'w').close()"


class Calls:
    """An object whose pickle calls ``function`` when it is loaded."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """pickle wants one that can be called."""


def malicious():
    """{how: object whose pickle runs code}."""
    objects = np.empty(1, object)
    objects[0] = Calls(os.system, f'touch {MARK}')
    nested = Calls(getattr, Calls(getattr, Calls(__import__, 'os'), 'path'), 'os')
    return {
        'os.system': Calls(os.system, f'touch {MARK}'),
        'eval': Calls(builtins.eval, TOUCH),
        'exec': Calls(builtins.exec, TOUCH),
        'popen': Calls(subprocess.Popen, ['touch', MARK]),
        'getattr of getattr': Calls(Calls(getattr, nested, 'system'), f'touch {MARK}'),
        'numpy objects': objects,
        'state of a module': Calls(nn.Linear, 1, 1, state=dict(hook=Calls(builtins.eval, TOUCH))),
        'torch.load': Calls(torch.load, 'inner.pth'),
        'partial': Calls(__import__('functools').partial, Calls(os.system, f'touch {MARK}')),
    }


def zipped(data, name='archive', method=zipfile.ZIP_STORED, **more):
    """The bytes of a file of torch.save with this data.pkl."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w', method) as archive:
        for member, content in {'data.pkl': data, 'byteorder': b'little', 'version': b'3\n', **more}.items():
            archive.writestr(f'{name}/{member}', content)
    return out.getvalue()


def saved(value, **options):
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def again(content, method=zipfile.ZIP_STORED, change=lambda info: info):
    """The same zip written anew: compressed, or with other names."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, 'w', method) as new:
        for info in old.infolist():
            data, info.compress_type = old.read(info), method
            new.writestr(change(info), data)
    return out.getvalue()


def zipped_storages(size):
    """A checkpoint of one storage of so many zero bytes, compressed."""
    small = saved(dict(a=torch.zeros(4, dtype=torch.uint8)))
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(small)) as old,
        zipfile.ZipFile(out, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as new,
    ):
        for info in old.infolist():
            if info.filename.endswith('data/0'):
                with new.open(info.filename, 'w', force_zip64=True) as member:
                    for _ in range(size // 10**6):
                        member.write(bytes(10**6))
            else:
                number = b'J' + struct.pack('<i', size)  # 4 numbers become so many
                new.writestr(info.filename, old.read(info).replace(b'K\x04', number))
    return out.getvalue()


class Zeros:
    """A file of zeros without end."""

    def read(self, count):
        return bytes(count)


def doubling():
    """A pickle of some hundred bytes by which a text is written in hexadecimal digits 60 times, twice as long each time."""
    data = b'\x80\x02' + b'c_codecs\nencode\n' * 60 + b'X\x10\0\0\0' + b'a' * 16
    return data + b'X\x03\0\0\0hex\x86R' * 60 + b'.'


def in_itself():
    value = []
    value.append(value)
    return value


def deep(levels=5000):
    value = {}
    for _ in range(levels):
        value = dict(a=value)
    return value


def laughs():
    value = ['ha'] * 10
    for _ in range(30):
        value = [value] * 10
    return value


def checkpoints(good):
    """{kind: (ending, bytes)} of files that no door takes. ``good``: a checkpoint of a run, as a dict."""
    whole, found = saved(good), {}
    for how, thing in malicious().items():
        for protocol in (2, 4):
            found[f'pickle {protocol}: {how}'] = '.pth', pickle.dumps(dict(state_dict=thing), protocol)
        found[f'zip: {how}'] = '.pth', zipped(pickle.dumps(dict(good, meta=thing), 2))
        found[f'legacy: {how}'] = '.pth', saved(dict(state_dict=thing), _use_new_zipfile_serialization=False)
        found[f'arrays: {how}'] = '.pkl', pickle.dumps(dict(model=dict(a=thing)))
    found['names that lead out'] = '.pth', again(whole, change=lambda info: info.filename.replace('archive', '../..'))
    found['an absolute name'] = '.pth', again(whole, change=lambda info: f'/{info.filename}')
    found['a script'] = '.pth', zipped(pickle.dumps({}, 2), **{'constants.pkl': pickle.dumps(()), 'code/x.py': TOUCH})
    found['arrays of numpy'] = '.pth', npz(a=np.zeros(3))
    found['a tar of storages'] = (
        '.pth',
        tar(dict(storages=b'x', tensors=b'x', pickle=pickle.dumps(1)), first='../storages'),
    )
    found['text'], found['empty'] = ('.pth', b'import os\n'), ('.pth', b'')
    found['nulls'], found['noise'] = ('.pth', bytes(5000)), ('.pth', random.Random(0).randbytes(5000))
    found['a page'] = '.pth', b'<!doctype html><html></html>'
    found['texts twice as long, 60 times'] = '.pkl', doubling()
    for name, value in {'a list': [1], 'a tensor': torch.zeros(3), 'a text': 'x', 'nothing': {}, 'in itself': dict(a=in_itself()),
                        'deep': deep(), 'laughs': dict(a=laughs())}.items():  # fmt: skip
        found[f'holds: {name}'] = '.pth', saved(value) if name != 'deep' else zipped(deep_pickle())
    weights = good['state_dict']
    first = next(iter(weights))
    for name, value in {
        'a list': list(weights), 'a text': 'x', 'None': None, 'a tensor': torch.zeros(2), 'of texts': dict.fromkeys(weights, 'x'),
        'of lists': {key: [1.0] for key in weights}, 'empty': {}, 'complex': {key: v + 0j for key, v in weights.items()},
        'sparse': weights | {first: torch.eye(3).to_sparse()}, 'without numbers': weights | {first: weights[first].to('meta')},
        'endless': weights | {first: torch.zeros(1).expand(10**11)}, 'numbers for names': dict(enumerate(weights.values())),
        'one a text': weights | {first: 'x'}, 'other shapes': {key: torch.zeros(7) for key in weights},
    }.items():  # fmt: skip
        found[f'state_dict: {name}'] = '.pth', saved(dict(good, state_dict=value))
    for cut in (1, 4, 30, 100, 1000, -1000, -30, -1):
        found[f'cut at {cut}'] = '.pth', whole[:cut]
    found['cut in the middle'] = '.pth', whole[: len(whole) // 2]
    for k, bit in enumerate(flips(whole, 6)):
        found[f'other bit {k}'] = '.pth', flipped(whole, bit)
    found['cut, old'] = '.pth', saved(good, _use_new_zipfile_serialization=False)[:-1000]
    bomb = saved(dict(good, state_dict=weights | dict(more=torch.zeros(BOMB // 4))))
    found['bomb'] = '.pth', again(bomb, zipfile.ZIP_DEFLATED)
    return found


def deep_pickle(levels=5000):
    return b'\x80\x02' + b'}X\1\0\0\0a' * levels + b'}' + b's' * levels + b'.'


def flips(content, count):
    """Numbers of bits inside the members of a zip, which have checksums."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        sizes = [(info.header_offset, info.compress_size, info.filename) for info in archive.infolist()]
    draw, found = random.Random(1), []
    for start, size, _ in draw.sample([each for each in sizes if each[1]], min(count, len(sizes))):
        long, extra = struct.unpack('<HH', content[start + 26 : start + 30])
        found.append(8 * (start + 30 + long + extra + draw.randrange(size)) + draw.randrange(8))
    return found


def flipped(content, bit):
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def parts_of_a_run(good):
    """{kind: (ending, bytes)} of checkpoints whose weights are right and which no run can go on from."""
    found, odd = {}, dict(text='x', list=[1, 2], tensor=torch.zeros(2), none=None, negative=-1, huge=10**30, float=0.5)
    for part in ('meta', 'optimizer', 'param_schedulers', 'message_hub', 'random_states'):
        values = dict(odd, missing=...) | (
            {} if part in ('param_schedulers', 'random_states') else dict(mapping=dict(x=1))
        )
        for name, value in values.items():
            if not isinstance(value, list) or part not in ('param_schedulers', 'random_states'):
                found[f'{part}: {name}'] = {**good, part: value}
    for key in ('epoch', 'batch', 'iter', 'steps_per_epoch', 'seed', 'optimizer', 'images', 'settings'):
        for name in ('text', 'list', 'tensor', 'negative'):
            found[f'meta.{key}: {name}'] = {**good, 'meta': {**good['meta'], key: odd[name]}}
    for path, value in {
        'optimizer.state.0': dict(momentum_buffer=torch.zeros(3, 3, 3, 3), exp_avg=torch.zeros(2, 2, 2, 2)),
        'optimizer.param_groups': [1], 'optimizer.state': 'x', 'message_hub.log_scalars': dict(loss=dict(values='x')),
        'message_hub.runtime_info': 3, 'random_states.0': dict(python=[3, [1], None], numpy=['x'], torch=torch.zeros(1)),
        'random_states.0.torch': torch.zeros(5, dtype=torch.uint8), 'param_schedulers.0': 'x',
    }.items():  # fmt: skip
        changed = copy.deepcopy(good)
        *way, last = [int(key) if key.isdigit() else key for key in path.split('.')]
        place = changed
        for key in way:
            place = place[key]
        place[last] = value
        found[f'{path}: wrong'] = changed
    for name, value in dict(odd, names=dict(folder='../x', rows=dict(a=1)), rows=dict(folder='x', rows=[1])).items():
        if name != 'none':
            found[f'shards: {name}'] = {**good, 'shards': value}
    files = {}
    for name, content in found.items():
        content = {key: value for key, value in content.items() if value is not ...}
        files[name] = '.pth', saved(content)
    return files


def safetensors(good):
    """{kind: (ending, bytes)}; ``good``: the bytes of a published file."""
    size = int.from_bytes(good[:8], 'little')
    header, data = json.loads(good[8 : 8 + size]), good[8 + size :]

    def written(head, length=None):
        text = head if isinstance(head, bytes) else json.dumps(head).encode()
        return (len(text) if length is None else length).to_bytes(8, 'little') + text + data

    first, second = [key for key in header if key != '__metadata__'][:2]
    changes = {
        'overlapping': {**header, second: header[first]}, 'a hole': {k: v for k, v in header.items() if k != first},
        'negative': {**header, first: {**header[first], 'data_offsets': [-4, 4]}},
        'behind the end': {**header, first: {**header[first], 'data_offsets': [0, 10**12]}},
        'a huge shape': {**header, first: {**header[first], 'shape': [10**9, 10**9]}},
        'no such dtype': {**header, first: {**header[first], 'dtype': 'OBJECT'}},
        'metadata of numbers': {**header, '__metadata__': dict(config=1)}, 'a list': [1], 'a text': 'x',
    }  # fmt: skip
    found = {name: written(head) for name, head in changes.items()}
    found |= {'header of 2^63 bytes': written(header, 1 << 63), 'header of 90 MB': written(header, 90 << 20)}
    found |= {'deep': written(b'[' * 100_000), 'no text': written(b'\xff\xfe{}'), 'header 0': written(b'')}
    found |= {f'cut at {cut}': good[:cut] for cut in (0, 4, 8, 100, -1)} | {'no data': good[: 8 + size]}
    return {name: ('.safetensors', content) for name, content in found.items()}


def npz(**arrays):
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def npy(shape, kind='<f4', data=b''):
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    head = head.ljust(-(-(len(head) + 11) // 64) * 64 - 11) + b'\n'
    return b'\x93NUMPY\x01\x00' + len(head).to_bytes(2, 'little') + head + data


def with_member(content, name, data, method=zipfile.ZIP_DEFLATED):
    """The npz with the member ``name`` replaced."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, 'w', method) as new:
        for info in old.infolist():
            new.writestr(info.filename, data if info.filename == f'{name}.npy' else old.read(info))
    return out.getvalue()


def packs(good, first, second):
    """{kind: bytes} of npz files; two of the arrays of ``good``, by name."""
    objects = np.empty(2, object)
    objects[:] = Calls(os.system, f'touch {MARK}'), 1
    arrays = {key: value for key, value in np.load(io.BytesIO(good), allow_pickle=False).items()}
    found = {
        'objects': npz(**{**arrays, first: objects}), 'objects beside': npz(**arrays, other=objects),
        'a huge header': with_member(good, first, npy((10**9, 10**6))), 'a negative shape': with_member(good, first, npy((-1, 8))),
        'of objects': with_member(good, first, npy((1,), '|O', pickle.dumps([Calls(os.system, f'touch {MARK}')]))),
        'code in a header': with_member(good, first, npy(f'__import__("os").system("touch {MARK}")')),
        'a header without end': with_member(good, first, b'\x93NUMPY\x01\x00\xff\xff('),
        'one axis more': npz(**{**arrays, first: arrays[first][None]}), 'texts': npz(**{**arrays, second: np.array(['x'])}),
        'without': npz(**{key: value for key, value in arrays.items() if key != first}), 'an array': npy((2,), data=bytes(8)),
        'a pickle': pickle.dumps(Calls(os.system, f'touch {MARK}')), 'empty': b'', 'nothing in it': npz(),
        'bomb': npz(**{**arrays, first: np.zeros(BOMB, np.uint8)}),
    }  # fmt: skip
    found |= {f'cut at {cut}': good[:cut] for cut in (1, 40, -30, -1)} | {'half of it': good[: len(good) // 2]}
    return found | {f'other bit {k}': flipped(good, bit) for k, bit in enumerate(flips(good, 3))}


def image(kind, size=(40, 30), mode='RGB', **options):
    out = io.BytesIO()
    Image.new(mode, size, 1).save(out, kind, **options)
    return out.getvalue()


def png(width, height, depth=8, colour=2, data=b''):
    chunk = lambda name, content: (  # noqa: E731
        struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))
    )
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT', data) + chunk(b'IEND', b'')


def images():
    """{kind: (ending, bytes)} of images that cannot be decoded, or are too large to be."""
    found = {
        '1 bit, 13 000 x 13 000': ('.png', png(13_000, 13_000, 1, 0, zlib.compress(bytes(13_000 * 1_626)))),
        'a side of 2^31': ('.png', png(2**31 - 1, 1)),
        '60 000 x 60 000': ('.png', png(60_000, 60_000)), 'a jpeg that says so': ('.jpg', jpeg_of(65_500, 65_500)),
        'a huge array': ('.npy', npy((10**7, 10**7, 3), '|u1')), 'objects': ('.npy', npy((1, 1, 1), '|O', b'x')),
        'a negative array': ('.npy', npy((-4, -4, 3), '|u1', bytes(48))), 'no header': ('.npy', b'\x93NUMPY\x01\x00\xff\xff('),
        'empty': ('.png', b''), 'a text': ('.jpg', b'x' * 100), 'a program': ('.png', b'%!PS-Adobe-3.0 EPSF-3.0\n%%EOF'),
    }  # fmt: skip
    draw = random.Random(2)
    for kind, ending in (
        ('PNG', '.png'),
        ('JPEG', '.jpg'),
        ('TIFF', '.tif'),
        ('GIF', '.gif'),
        ('WEBP', '.webp'),
        ('BMP', '.bmp'),
    ):
        good = image(kind)
        for cut in (3, 10, len(good) // 3):
            found[f'{kind} cut at {cut}'] = ending, good[:cut]
        for k in range(12):  # some of these are images still
            changed = bytearray(good)
            for _ in range(1 + k % 4):
                changed[draw.randrange(len(good))] = draw.randrange(256)
            found[f'{kind} with other bytes, {k}'] = ending, bytes(changed)
    return found


def jpeg_of(width, height):
    good = bytearray(image('JPEG'))
    place = good.index(b'\xff\xc0')
    good[place + 5 : place + 9] = struct.pack('>HH', height, width)
    return bytes(good)


def tar(files, first=None, kind=None, link='', mode='w', pax=None):
    """The bytes of a tar with ``files``, the first under another name, of another kind, or with other pax headers."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as archive:
        for k, (name, data) in enumerate(files.items()):
            info = tarfile.TarInfo(first or name if k == 0 else name)
            info.size = len(data)
            if k == 0 and kind is not None:
                info.type, info.linkname, info.size = kind, link, 0
            if k == 0 and pax:
                info.pax_headers = pax
            archive.addfile(info, io.BytesIO(data) if info.size else None)
    return out.getvalue()


def shards(files):
    """{kind: bytes} of tar files that no source of images takes; ``files``: those of a good one."""
    good, name = tar(files), next(iter(files))
    found = {
        'a link': tar(files, kind=tarfile.SYMTYPE, link='/etc/passwd'), 'a device': tar(files, kind=tarfile.CHRTYPE),
        'a size of its own': tar(files, pax=dict(size=str(10**15))), 'no size': tar(files, pax=dict(size='x')),
        'sparse': tar(files, pax={'GNU.sparse.size': '99', 'GNU.sparse.map': '0,1', 'GNU.sparse.numblocks': '1'}),
        'a name that leads out': tar(files, first='../../escaped.png'), 'an absolute name': tar(files, first='/escaped.png'),
        'compressed': gzip.compress(good), 'twice the same': tar(files) [:-10240] + good, 'empty': b'', 'noise': b'x' * 2000,
        'a cell of code': tar({name: b'x', name.replace('.png', '.cls'): b"__import__('os')\n1"}),
    }  # fmt: skip
    found |= {f'cut at {cut}': good[:cut] for cut in (1, 300, 600, len(good) // 2)}
    return found | {f'byte {at}': good[:at] + b'\xff' + good[at + 1 :] for at in (0, 120, 128, 150, 157)}


def archives(weights):
    """{kind: bytes} of .tar.gz files of which no file of weights is unpacked."""
    name = 'model.pth'
    return {
        'a link': tar({name: weights}, kind=tarfile.SYMTYPE, link='/etc/passwd', mode='w:gz'),
        'a hard link': tar({name: weights}, kind=tarfile.LNKTYPE, link='../../outside', mode='w:gz'),
        'a device': tar({name: weights}, kind=tarfile.BLKTYPE, mode='w:gz'),
        'two': tar({name: weights, 'other.pth': weights}, mode='w:gz'), 'none': tar({'a.txt': b'x'}, mode='w:gz'),
        'a size of its own': tar({name: weights}, pax=dict(size=str(10**15)), mode='w:gz'),
        'no tar': gzip.compress(b'x' * 3000), 'no gzip': tar({name: weights}), 'empty': b'',
        'bomb': tar({name: bytes(BOMB)}, mode='w:gz'),
        'sparse': tar({name: b'x'}, pax={'GNU.sparse.major': '1', 'GNU.sparse.realsize': str(10**13)}, mode='w:gz'),
        **{f'cut at {cut}': tar({name: weights}, mode='w:gz')[:cut] for cut in (3, 20, -5)},
    }  # fmt: skip


def metafiles(good):
    """{kind: text} of metafiles that break the format; ``good``: the values of a valid one with one row."""
    row, texts = good['Models'][0], {}
    for part in ('Collections', 'Models', 'Other Weights'):
        for name, value in dict(text='x', number=3, list=[1], mapping=dict(a=1), lists=[[1]], none=[None]).items():
            texts[f'{part}: {name}'] = yaml.safe_dump({**good, part: value})
    odd = dict(text='x', number=3, list=[1], lists=[[1]], mapping=dict(a=[1]), none=[None])
    for key in ('Results', 'Files', 'Metadata', 'Config', 'Config Options', 'In Collection', 'Name'):
        for name, value in odd.items():
            if (key, name) not in (('Config Options', 'mapping'), ('Metadata', 'mapping'), ('Name', 'text')):
                texts[f'{key}: {name}'] = yaml.safe_dump({**good, 'Models': [{**row, key: value}]})
    for name, config in dict(
        out='configs/../../evil.py', absolute='/evil.py', elsewhere='evil.py', code='configs/a.json'
    ).items():
        texts[f'a config: {name}'] = yaml.safe_dump({**good, 'Models': [{**row, 'Config': config}]})
    for key in ('model.backbone.pretrained', 'model.backbone.checkpoint_path', 'custom_imports', '_base_', 'load_from'):
        texts[f'an option: {key}'] = yaml.safe_dump({**good, 'Models': [{**row, 'Config Options': {key: True}}]})
    nested = {'model.backbone': dict(pretrained_cfg=dict(file='x'))}
    texts['an option: nested'] = yaml.safe_dump({**good, 'Models': [{**row, 'Config Options': nested}]})
    texts['python'] = f'Collections: !!python/object/apply:os.system ["touch {MARK}"]\nModels: []\n'
    texts['python name'] = 'Collections: !!python/name:os.system\nModels: []\n'
    texts['laughs'] = (
        'a: &a [x, x]\n' + ''.join(f'b{k}: &b{k} [*a, *a]\n' for k in range(9)) + 'Collections: *b8\nModels: []\n'
    )
    texts['no yaml'], texts['deep'], texts['empty'], texts['a list'] = '{', '[' * 500, '', '[]'
    texts['a date'] = 'Collections: 2020-99-99\nModels: []\n'
    return texts
