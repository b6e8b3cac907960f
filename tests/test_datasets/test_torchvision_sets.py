import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import FakeData, VisionDataset

from mmkernel.datasets import CorruptImageError, Torchvision
from mmkernel.datasets.training import as_source


def classes_of(root, count=2):
    for name in ('River', 'Forest'):
        (root / f'eurosat/2750/{name}').mkdir(parents=True)
        for k in range(count):
            Image.new('RGB', (6, 4), (k, 0, 0)).save(root / f'eurosat/2750/{name}/{name}_{k}.jpg')
    return str(root)


def house_numbers(root):
    images = np.arange(3, dtype=np.uint8) * np.ones((32, 32, 3, 1), np.uint8)
    scipy.io.savemat(root / 'test_32x32.mat', dict(X=images, y=np.array([[10], [3], [1]])))
    return str(root)


@pytest.fixture
def any_checksum(monkeypatch):
    """torchvision reads these files only with the published checksums, which files made here cannot have."""
    monkeypatch.setattr('torchvision.datasets.svhn.check_integrity', lambda *_: True)


def test_a_set_of_folders(tmp_path):
    source = as_source(Torchvision('EuroSAT', classes_of(tmp_path)))
    assert source.classes == ['Forest', 'River']
    assert source.labels.tolist() == [0, 0, 1, 1]
    assert source.image(1).shape == (4, 6, 3)
    assert Torchvision('EuroSAT', str(tmp_path), mode='L').image(1).shape == (4, 6, 1)
    assert Torchvision('EuroSAT', str(tmp_path), labels=False).labels.tolist() == [-1] * 4


@pytest.mark.usefixtures('any_checksum')
def test_a_set_in_one_file_with_an_option(tmp_path):
    source = as_source(Torchvision('SVHN', house_numbers(tmp_path), split='test'))
    assert source.labels.tolist() == [0, 3, 1]
    assert source.classes == []
    assert [int(source.image(i)[0, 0, 0]) for i in (2, 0, 1)] == [2, 0, 1]
    copy = pickle.dumps(source)
    assert len(copy) < 2000  # no image travels
    assert int(pickle.loads(copy).image(2)[0, 0, 0]) == 2


def test_labels_that_no_list_has_are_read_from_the_items():
    source = as_source(Torchvision('FakeData', size=5, image_size=(3, 4, 6), num_classes=7))
    assert source.labels.tolist() == [FakeData(5, (3, 4, 6), 7)[i][1] for i in range(5)]
    assert source.image(0).shape == (4, 6, 3)


class Odd(VisionDataset):
    """Three grey images with what the test says beside them."""

    def __init__(self, root=None, beside=0, kept=None):
        self.beside, self.targets = beside, kept

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if self.beside == 'broken':
            raise OSError('image file is truncated')
        return Image.new('L', (6, 4), i), self.beside


@pytest.fixture
def odd(monkeypatch):
    monkeypatch.setattr('torchvision.datasets.FakeData', Odd)
    return lambda **options: Torchvision('FakeData', **options)


def test_a_list_that_does_not_agree_with_the_items_is_not_used(odd):
    assert odd(beside=2, kept=[2, 2, 2]).labels.tolist() == [2, 2, 2]
    assert odd(beside=2, kept=[0, 1, 2]).labels.tolist() == [2, 2, 2]
    assert odd(beside=np.int64(1)).labels.tolist() == [1, 1, 1]
    assert odd(beside='cat').classes == ['cat']


@pytest.mark.parametrize('beside', [dict(boxes=[]), [1, 0], (1, 2), None, 0.5, True])
def test_what_is_no_class_is_refused_unless_labels_are_not_wanted(odd, beside):
    with pytest.raises(
        ValueError, match=r'image 0 of Odd .* comes with .* expected an image and the number of its class.*labels=False'
    ):
        odd(beside=beside)
    assert odd(beside=beside, labels=False).image(2).shape == (4, 6, 3)


def test_damaged_images_are_named(odd):
    with pytest.raises(CorruptImageError, match='image 0 of Odd in None cannot be decoded .*truncated'):
        odd(beside='broken', labels=False).image(0)


def test_errors_say_what_there_is(tmp_path):
    with pytest.raises(ValueError, match=r"no data set torchvision\.datasets\.FGVC. Did you mean 'FGVCAircraft'"):
        Torchvision('FGVC', str(tmp_path))
    with pytest.raises(ValueError, match=r'no data set torchvision\.datasets\.zzzz. There are: .*EuroSAT'):
        Torchvision('zzzz', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r'EuroSAT finds its files in .*download=True'):
        Torchvision('EuroSAT', str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"folder '.*nowhere' does not exist"):
        Torchvision('EuroSAT', str(tmp_path / 'nowhere'))
    with pytest.raises(ValueError, match=r"EuroSAT has no option 'split'; its signature is \(root"):
        Torchvision('EuroSAT', str(tmp_path), split='test')
    with pytest.raises(ValueError, match="EuroSAT needs 'root'"):
        Torchvision('EuroSAT')
    with pytest.raises(ValueError, match=r'a run downloads nothing.*python -c'):
        Torchvision('EuroSAT', str(tmp_path), download=True)
    with pytest.raises(ValueError, match='transform is not taken'):
        Torchvision('EuroSAT', str(tmp_path), transform=None)
