"""What a run needs of a source, for every kind: one line of the config changes, and nothing else does.

A kind is a function of a folder with IMAGES of CLASSES, c0/00.png, c1/01.png, ...; it gives the config of a source that has
them all, with labels, in the order of their paths.
"""

import hashlib
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from multiprocess import run_processes
from PIL import Image
from torch.utils.data import DataLoader

import mmkernel.datasets.loader as loader_module
from mmkernel.datasets import EpochSampler, ViewDataset, scanned
from mmkernel.engine import load_config, train
from mmkernel.registry import DATASETS

IMAGES, CLASSES = 26, 3
FILES = sorted(f'c{k % CLASSES}/{k:02d}.png' for k in range(IMAGES))


def folder(root):
    return dict(type='ImageFolder', root=str(root), labels=True, mode='L')


def text_list(root):
    lines = [f'{path} {path[:2]}' for path in FILES]
    (root / 'list.txt').write_text('\r\n'.join(lines))
    return dict(type='ImageList', names=str(root / 'list.txt'), labels=True, mode='L')


def table(root):
    lines = ['class,image', *(f'{path[:2]},.\\{path[0:2]}\\{path[3:]}' for path in FILES)]
    (root / 'list.csv').write_text('\n'.join(lines), encoding='utf-16')
    return dict(type='ImageList', names=str(root / 'list.csv'), labels='class', mode='L')


def part(root):
    (root / 'part.json').write_text(str(FILES).replace("'", '"'))
    return dict(type='Subset', source=folder(root), names=str(root / 'part.json'))


def pack(root):
    data = [(root / path).read_bytes() for path in FILES]
    np.savez(
        root / 'pack.npz',
        train_jpeg=np.frombuffer(b''.join(data), np.uint8),
        train_off=np.cumsum([0] + [len(each) for each in data]),
        train_label=[int(path[1]) for path in FILES],
        train_file=FILES,
        classes=['c0', 'c1', 'c2'],
    )
    return dict(type='NpzPack', path=str(root / 'pack.npz'), mode='L')


def shards(root):
    for first in range(0, IMAGES, 10):
        with tarfile.open(root / f'train-{first // 10:02d}.tar', 'w') as tar:
            for path in FILES[first : first + 10]:
                label = root / path.replace('.png', '.cls')
                label.write_text(path[:2])
                tar.add(label, label.relative_to(root))
                tar.add(root / path, path)
    return dict(type='TarShards', shards=f'{root}/train-{{00..02}}.tar', mode='L')


def parquet(root):
    for k in range(2):
        images = [dict(bytes=(root / path).read_bytes(), path=path) for path in FILES[13 * k : 13 * k + 13]]
        rows = pa.table(dict(image=images, label=[each['path'][:2] for each in images]))
        pq.write_table(rows, root / f'train-{k}.parquet', row_group_size=5)
    return dict(type='Parquet', files=f'{root}/*.parquet', mode='L', cache_mb=0)


KINDS = [folder, text_list, table, part, pack, shards, parquet]


@pytest.fixture
def root(tmp_path):
    root, rng = tmp_path / 'images', np.random.default_rng(0)  # beside the work folder, in which a run writes pictures
    for path in FILES:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(root / path)
    return root


@pytest.fixture(params=KINDS, ids=[kind.__name__ for kind in KINDS])
def source(request, root):
    return request.param(root)


def test_images_labels_and_classes(source, root):
    built = DATASETS.build(source)
    assert built.classes == ['c0', 'c1', 'c2']
    assert [built.classes[k] for k in built.labels] == [path[:2] for path in FILES]
    for i in (0, 9, IMAGES - 1):
        assert (built.image(i)[..., 0] == np.asarray(Image.open(root / FILES[i]))).all()
        assert built.file_names()[i].endswith(FILES[i])


CROP = dict(type='RandomResizedCrop', scale=(0.5, 1.0))


def batches(source, rank, world, workers, monkeypatch):
    """{index: its view} of a rank in epoch 5."""
    monkeypatch.setattr(loader_module, 'get_dist_info', lambda: (rank, world))
    data = ViewDataset(source, dict(a=dict(count=1, size=8, crop=CROP)))
    sampler = EpochSampler(data, seed=1, round_up=False)
    sampler.set_epoch(5)
    found = [batch for batch in DataLoader(data, 4, sampler=sampler, num_workers=workers)]
    pairs = [(int(i), view) for b in found for i, view in zip(b['sample_index'], b['inputs'][0], strict=True)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize('world, workers', [(2, 0), (3, 2)])
def test_every_image_once_and_alike_however_many_processes_read(source, world, workers, monkeypatch):
    alone = batches(source, 0, 1, 0, monkeypatch)
    parts = [batches(source, rank, world, workers, monkeypatch) for rank in range(world)]
    assert sorted(i for part in parts for i in part) == sorted(alone) == list(range(IMAGES))
    assert all((view == alone[i]).all() for part in parts for i, view in part.items())


def rows_of_rank(rank, world_size, sources):
    """[(2, n) numbers and labels of the images of this rank] of each source."""
    found = []
    for source in sources:
        data = ViewDataset(source, dict(a=dict(count=1, size=8, crop=CROP)))
        loader = DataLoader(data, 4, sampler=EpochSampler(data, seed=1, round_up=False))
        found.append(torch.cat([torch.stack([batch['sample_index'], batch['label']]) for batch in loader], 1))
    return found


def test_every_image_once_by_processes_of_their_own(root):
    ranks = run_processes(rows_of_rank, 2, [kind(root) for kind in KINDS])
    for kind, parts in zip(KINDS, zip(*ranks, strict=True), strict=True):
        rows, labels = torch.cat(parts, 1).tolist()
        assert sorted(rows) == list(range(IMAGES)), kind.__name__
        assert labels == [int(FILES[row][1]) for row in rows], kind.__name__


def run(repository, work_dir, source, epochs, **options):
    """The weights of SFRIK on ``source``, as bytes."""
    small = {'train_dataloader.batch_size': 8, 'train_cfg.max_epochs': epochs, 'log_level': 'ERROR', 'evaluation': None}
    hooks = {f'default_hooks.{name}': None for name in ('monitor', 'knn')}
    small |= {
        'model.backbone.channels': (4, 4, 4, 4),
        'model.neck.dims': (8, 8),
        'default_hooks.checkpoint.interval': 1,
    }
    small |= {'param_scheduler.warmup_epochs': 1}
    cfg = load_config(repository / 'configs/sfrik/digits_L2.py', {**small, **hooks})
    cfg.train_dataloader.dataset.source = source  # the line
    cfg.work_dir = str(work_dir)
    runner = train(cfg, **options)
    return hashlib.md5(
        b''.join(v.contiguous().numpy().tobytes() for v in runner.model.state_dict().values())
    ).hexdigest()


def test_training_resumes_exactly_and_does_not_depend_on_the_kind(source, root, tmp_path, repository):
    work = tmp_path / 'work'
    straight = run(repository, work / 'a', source, 2)
    (work / 'a' / 'epoch_2.pth').unlink()
    assert run(repository, work / 'a', source, 2, resume=True) == straight
    assert run(repository, work / 'b', folder(root), 2) == straight


def test_a_folder_with_an_index_is_no_other_source(root, monkeypatch):
    plain = DATASETS.build(folder(root))
    monkeypatch.setattr(scanned, 'INDEX_FROM', 5)
    for _ in range(2):
        kept = DATASETS.build(folder(root))
        assert list(kept.file_names()) == list(plain.file_names()) == FILES
        assert torch.equal(torch.from_numpy(kept.labels), torch.from_numpy(plain.labels))
