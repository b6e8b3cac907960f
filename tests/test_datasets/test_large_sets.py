import json

import pytest
from PIL import Image

from mmkernel.datasets import INaturalist, Places205
from mmkernel.datasets.training import as_source


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (6, 4)).save(path)
    return path


def species(root, file='train2018.json', names=('owl', 'oak', 'elk'), **changes):
    images = [dict(id=10 + k, file_name=f'train_val2018/Aves/{k}/{k}.jpg') for k in range(3)]
    for image in images:
        draw(root / image['file_name'])
    given = dict(
        images=images,
        annotations=[dict(image_id=12 - k, category_id=(7, 3, 9)[k]) for k in range(3)],
        categories=[dict(id=number, name=name) for number, name in zip((3, 9, 7), names, strict=True)],
    )
    (root / file).write_text(json.dumps(given | changes))
    return str(root)


@pytest.mark.parametrize(
    'year, split, file', [(2018, 'train', 'train2018.json'), (2021, 'train_mini', 'train_mini.json')]
)
def test_species(tmp_path, year, split, file):
    source = as_source(INaturalist(species(tmp_path, file), split, year))
    assert source.classes == ['owl', 'elk', 'oak']  # numbers 3, 7, 9
    assert source.labels.tolist() == [2, 0, 1]
    assert source.image(2).shape == (4, 6, 3)
    assert INaturalist.expected_length(split=split, year=year) > 400000


def test_species_of_one_name_are_told_apart_by_number(tmp_path):
    assert INaturalist(species(tmp_path, names=('owl', 'owl', 'elk'))).classes == ['3', '7', '9']


def test_bad_lists_of_species(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train2018\.json' is missing.*inat_comp"):
        INaturalist(str(tmp_path))
    with pytest.raises(ValueError, match=r'year is one of 2017, 2018, 2019, 2021, got 2020'):
        INaturalist(str(tmp_path), year=2020)
    with pytest.raises(ValueError, match="split is 'train' or 'val', got 'train_mini'"):
        INaturalist(str(tmp_path), 'train_mini')
    for changes in (dict(annotations=[]), dict(categories=[]), dict(images=7)):
        with pytest.raises(ValueError, match=r"train2018\.json' is not a list of images"):
            INaturalist(species(tmp_path, **changes))
    (tmp_path / 'train2018.json').write_text('{"images": [')
    with pytest.raises(ValueError, match=r"train2018\.json' is not a list of images"):
        INaturalist(str(tmp_path))
    species(tmp_path)
    (tmp_path / 'train_val2018/Aves/0/0.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r"first image of the list, '.*0\.jpg', is missing"):
        INaturalist(str(tmp_path))


@pytest.mark.parametrize(
    'images, lists',
    [('data/vision/torralba/deeplearning/images256', 'trainvalsplit_places205'), ('images256', '.'), ('.', '.')],
)
@pytest.mark.parametrize('mark', [' ', ','])
def test_scenes(tmp_path, images, lists, mark):
    (tmp_path / lists).mkdir(exist_ok=True)
    names = ['b/bar/x y.jpg', 'a/abbey/1,2.jpg', 'b/bar/z.jpg']
    for name in names:
        draw(tmp_path / images / name)
    lines = [f'{name}{mark}{label}' for name, label in zip(names, (1, 0, 1), strict=True)]
    (tmp_path / lists / 'val_places205.csv').write_bytes('\r\n'.join(lines).encode())
    source = as_source(Places205(str(tmp_path), 'val'))
    assert source.labels.tolist() == [1, 0, 1]
    assert source.classes == ['a/abbey', 'b/bar']
    assert source.image(1).shape == (4, 6, 3)
    with pytest.raises(FileNotFoundError, match=r'no train_places205\.csv in'):
        Places205(str(tmp_path))


def test_bad_lists_of_scenes(tmp_path):
    file = tmp_path / 'train_places205.csv'
    for text, said in (
        ('a/b.jpg 0\nc.jpg\n', r"line 2 of .* is 'c\.jpg'"),
        ('', 'the list is empty'),
        ('a.jpg 0', r"'.*/a\.jpg', is missing"),
    ):
        file.write_text(text)
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            Places205(str(tmp_path))
