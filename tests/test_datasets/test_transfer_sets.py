import json

import numpy as np
import pytest
import scipy.io
from PIL import Image

from mmkernel.datasets import (
    DTD,
    SUN397,
    Birdsnap,
    Caltech101,
    FGVCAircraft,
    Flowers102,
    Food101,
    OxfordPets,
    StanfordCars,
)
from mmkernel.registry import DATASETS


def draw(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (6, 4), (value, 0, 0)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def food(root):
    for split, names in dict(
        train=dict(pie=['pie/1', 'pie/2'], cake=['cake/3']), test=dict(pie=['pie/4'], cake=[])
    ).items():
        write(root / f'food-101/meta/{split}.json', json.dumps(names))
        for name in sum(names.values(), []):
            draw(root / f'food-101/images/{name}.jpg')


def cars(root):
    home = root / 'stanford_cars'
    kind = [('fname', 'O'), ('class', 'O')]
    (home / 'devkit').mkdir(parents=True)
    scipy.io.savemat(home / 'devkit/cars_meta.mat', {'class_names': np.array(['mini', 'van'], object)})
    for split, path in dict(train='devkit/cars_train_annos.mat', test='cars_test_annos_withlabels.mat').items():
        rows = np.array([(f'{k}.jpg', 2 - k % 2) for k in (1, 2)], kind)
        scipy.io.savemat(home / path, {'annotations': rows})
        for k in (1, 2):
            draw(home / f'cars_{split}/{k}.jpg')


def aircraft(root):
    data = root / 'fgvc-aircraft-2013b/data'
    write(data / 'variants.txt', 'Boeing 737-700\nA310\n')
    for k, split in enumerate(('train', 'val', 'trainval', 'test')):
        write(data / f'images_variant_{split}.txt', f'00{k} A310\n00{k}7 Boeing 737-700\n')
        draw(data / f'images/00{k}.jpg')
        draw(data / f'images/00{k}7.jpg')


def textures(root):
    for k, split in enumerate(('train', 'val', 'test')):
        write(root / f'dtd/dtd/labels/{split}1.txt', f'dotted/d{k}.jpg\nwoven/w{k}.jpg\n')
        draw(root / f'dtd/dtd/images/dotted/d{k}.jpg')
        draw(root / f'dtd/dtd/images/woven/w{k}.jpg')


def pets(root):
    for split in ('trainval', 'test'):
        lines = f'Abyssinian_{split} 1 1 1\ngreat_pug_{split} 2 2 1\n'
        write(root / f'oxford-iiit-pet/annotations/{split}.txt', lines)
        draw(root / f'oxford-iiit-pet/images/Abyssinian_{split}.jpg')
        draw(root / f'oxford-iiit-pet/images/great_pug_{split}.jpg')


def flowers(root):
    home = root / 'flowers-102'
    for k in range(1, 7):
        draw(home / f'jpg/image_{k:05d}.jpg')
    scipy.io.savemat(home / 'imagelabels.mat', {'labels': np.array([1, 2, 1, 2, 1, 2])})
    splits = {'trnid': np.array([1, 2]), 'valid': np.array([3, 4]), 'tstid': np.array([5, 6])}
    scipy.io.savemat(home / 'setid.mat', splits)


@pytest.fixture
def published_checksums(monkeypatch):
    """torchvision reads the lists of Flowers only with the published checksums, which files made here cannot have."""
    monkeypatch.setattr('torchvision.datasets.flowers102.check_integrity', lambda *_: True)


CASES = [
    (Food101, food, 'train', [1, 1, 0]),
    (StanfordCars, cars, 'train', [0, 1]),
    (StanfordCars, cars, 'test', [0, 1]),
    (FGVCAircraft, aircraft, 'trainval', [1, 0, 1, 0]),
    (DTD, textures, 'trainval', [0, 1, 0, 1]),
    (DTD, textures, 'test', [0, 1]),
    (OxfordPets, pets, 'trainval', [0, 1]),
    (Flowers102, flowers, 'trainval', [0, 1, 0, 1]),
    (Flowers102, flowers, 'test', [0, 1]),
]


@pytest.mark.usefixtures('published_checksums')
@pytest.mark.parametrize('kind, make, split, labels', CASES, ids=lambda value: getattr(value, '__name__', str(value)))
def test_official_layout(tmp_path, kind, make, split, labels):
    make(tmp_path)
    source = DATASETS.build(dict(type=kind.__name__, root=str(tmp_path), split=split))
    assert source.labels.tolist() == labels
    assert all(source.image(i).shape == (4, 6, 3) for i in range(len(source)))
    assert kind(str(tmp_path), split, mode='L').image(0).shape == (4, 6, 1)
    if len(labels) == 4:
        assert source.validation.tolist() == [False, False, True, True]
    else:
        assert source.validation is None
    assert kind.expected_length(split=split) > 1000


@pytest.mark.parametrize('kind', [Food101, StanfordCars, FGVCAircraft, DTD, OxfordPets, Flowers102])
def test_absent_set(tmp_path, kind):
    split = 'test'
    with pytest.raises(
        FileNotFoundError, match=rf"{kind.__name__}: '.*' has no complete {kind.folder}/.*Unpack the files"
    ):
        kind(str(tmp_path), split)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        kind(str(tmp_path / 'nowhere'), split)
    with pytest.raises(ValueError, match='split'):
        kind(str(tmp_path), 'extra')


def test_a_split_without_a_class_numbers_no_other_anew(tmp_path):
    textures(tmp_path)
    write(tmp_path / 'dtd/dtd/labels/val1.txt', 'woven/w1.jpg\n')
    source = DTD(str(tmp_path), 'trainval')
    assert [source.classes[label] for label in source.labels] == ['dotted', 'woven', 'woven']


def test_missing_list_is_named(tmp_path):
    textures(tmp_path)
    (tmp_path / 'dtd/dtd/labels/val1.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'val1\.txt. is missing'):
        DTD(str(tmp_path), 'trainval')


@pytest.mark.parametrize('where', ['SUN397', 'SUN397/Partitions', 'Partitions'])
def test_scenes(tmp_path, where):
    draw(tmp_path / 'SUN397/a/abbey/sun_1.jpg')
    draw(tmp_path / 'SUN397/b/bar/outdoor/sun_2.jpg')
    write(tmp_path / where / 'Training_01.txt', '/b/bar/outdoor/sun_2.jpg\n/a/abbey/sun_1.jpg\n')
    source = SUN397(str(tmp_path), 'train')
    assert source.labels.tolist() == [1, 0]
    assert source.image(0).shape == (4, 6, 3)
    with pytest.raises(FileNotFoundError, match=r'Testing_01\.txt is in none of'):
        SUN397(str(tmp_path), 'test')


def test_birds(tmp_path):
    home = tmp_path / 'birdsnap'
    rows = ['url\tmd5\tpath\tspecies_id'] + [
        f'u\tm\t{p}\t{s}' for p, s in (('owl/1.jpg', 10), ('owl/2.jpg', 10), ('tit/3.jpg', 9))
    ]
    write(home / 'images.txt', '\n'.join(rows) + '\n')
    write(home / 'test_images.txt', 'path\nowl/2.jpg\n')
    for name in ('owl/1', 'owl/2'):
        draw(home / f'download/images/{name}.jpg')
    with pytest.warns(UserWarning, match='1 of 2 images are missing'):
        assert Birdsnap(str(tmp_path), 'train').labels.tolist() == [1]
    assert Birdsnap(str(tmp_path), 'test').name(0).endswith('owl/2.jpg')
    (home / 'download/images/owl/2.jpg').unlink()
    with pytest.raises(FileNotFoundError, match='none of 1 images'):
        Birdsnap(str(tmp_path), 'test')
    (home / 'test_images.txt').unlink()
    with pytest.raises(FileNotFoundError, match=r'test_images\.txt. is missing'):
        Birdsnap(str(tmp_path))


def test_objects(tmp_path):
    for name in ('BACKGROUND_Google', 'ant'):
        for k in range(5):
            draw(tmp_path / f'caltech101/101_ObjectCategories/{name}/image_{k:04d}.jpg', 40 * k)
    train, test = (Caltech101(str(tmp_path), split, per_class=2) for split in ('train', 'test'))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1], [0, 0, 0, 1, 1, 1])
    names = [source.name(i) for source in (train, test) for i in range(len(source))]
    assert len(set(names)) == 10
    seeds = [Caltech101(str(tmp_path), per_class=2, seed=seed) for seed in range(4)]
    assert len({tuple(source.name(i) for i in range(4)) for source in seeds}) > 1
    with pytest.raises(ValueError, match='5 images in .*; taking 30 to train leaves none'):
        Caltech101(str(tmp_path))
