import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import VOC2007
from mmkernel.registry import DATASETS

LISTS = {  # a class called train, as VOC has: train_train.txt, train_trainval.txt
    'bus': {'001': 1, '002': -1, '003': 0, '004': 1},
    'train': {'001': -1, '002': 1, '003': 1, '004': -1},
}
SPLITS = dict(train=('001', '002'), val=('003',), trainval=('001', '002', '003'), test=('004',))


def write_voc(root):
    home = root / 'VOCdevkit/VOC2007'
    main = home / 'ImageSets/Main'
    for folder in (main, home / 'JPEGImages'):
        folder.mkdir(parents=True)
    for split, ids in SPLITS.items():
        (main / f'{split}.txt').write_text('\n'.join(ids) + '\n')
        for name, given in LISTS.items():
            (main / f'{name}_{split}.txt').write_text(''.join(f'{i} {given[i]:2d}\n' for i in ids))
    for i in ('001', '002', '003', '004'):
        Image.new('RGB', (8, 6), (int(i), 0, 0)).save(home / f'JPEGImages/{i}.jpg')
    return root


@pytest.mark.parametrize('where', ['', 'VOCdevkit', 'VOCdevkit/VOC2007'])
def test_targets(tmp_path, where):
    source = VOC2007(str(write_voc(tmp_path) / where), 'trainval')
    assert source.classes == ['bus', 'train']
    assert source.targets.tolist() == [[1, 0], [0, 1], [-1, 1]]
    assert source.targets.dtype == np.int8
    assert source.labels.tolist() == [-1, -1, -1]
    assert source.validation.tolist() == [False, False, True]
    assert source.image(1).shape == (6, 8, 3)
    assert source.name(2).endswith('003.jpg')


def test_chosen_classes_and_splits(tmp_path):
    root = str(write_voc(tmp_path))
    assert VOC2007(root, 'train', ['train']).targets.tolist() == [[0], [1]]
    assert VOC2007(root, 'test').targets.tolist() == [[1, 0]]
    assert VOC2007(root, 'test').validation is None
    assert VOC2007(root, 'val', mode='L').image(0).shape == (6, 8, 1)
    assert DATASETS.build(dict(type='VOC2007', root=root)).classes == ['bus', 'train']
    with pytest.raises(ValueError, match=r'of the classes bus, train; unknown: \[.tram.\]'):
        VOC2007(root, 'train', ['tram'])


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'does not exist.*VOCdevkit/VOC2007'):
        VOC2007(str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match='no ImageSets/Main'):
        VOC2007(str(tmp_path))
    root = write_voc(tmp_path)
    main = root / 'VOCdevkit/VOC2007/ImageSets/Main'
    (main / 'bus_test.txt').write_text('001 1\n')
    with pytest.raises(ValueError, match=r"bus_test\.txt'.*expected '<image> 1'"):
        VOC2007(str(root), 'test')
    for path in main.glob('*_test.txt'):
        path.unlink()
    with pytest.raises(ValueError, match=r'has lists <class>_test.txt of the classes none'):
        VOC2007(str(root), 'test')
    (main / 'test.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'test\.txt. is missing or empty; the folder has train\.txt'):
        VOC2007(str(root), 'test')
    with pytest.raises(ValueError, match="split is one of 'trainval', 'train'"):
        VOC2007(str(root), 'trainval2')
