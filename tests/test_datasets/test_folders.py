import pickle
import warnings

import pytest
from PIL import Image

from mmkernel.datasets import CorruptImageError, ImageFolder, ImageNet


def write(path, value=0, size=(6, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (value, value, value)).save(path, 'PNG')  # PNG under any name: Pillow looks at the content
    return path


@pytest.fixture
def folder(tmp_path):
    for k, name in enumerate(('b/two.png', 'a/deep/er/one.JPG', 'a/ünï.png', 'c.png')):
        write(tmp_path / name, k * 10)
    (tmp_path / 'notes.txt').write_text('no image')
    (tmp_path / 'a' / '._one.JPG').write_bytes(b'left by another system')
    return tmp_path


def test_any_folder_without_labels(folder):
    source = ImageFolder(str(folder))
    assert [source.paths[i] for i in range(len(source))] == ['c.png', 'a/ünï.png', 'a/deep/er/one.JPG', 'b/two.png']
    assert source.labels.tolist() == [-1] * 4
    assert source.label(0) == -1
    assert source.classes == []
    assert source.image(3).shape == (5, 6, 3)
    assert source.image(3).max() == 0
    assert source.name(0) == str(folder / 'c.png')
    assert pickle.loads(pickle.dumps(source)).name(2) == source.name(2)


def test_one_channel(folder):
    assert ImageFolder(str(folder), mode='L').image(0).shape == (5, 6, 1)


def test_labels_are_the_first_folder(folder):
    with pytest.raises(ValueError, match=r"'c\.png' and 0 more lie directly"):
        ImageFolder(str(folder), labels=True)
    (folder / 'c.png').unlink()
    source = ImageFolder(str(folder), labels=True)
    assert source.classes == ['a', 'b']
    assert source.labels.tolist() == [0, 0, 1]


def test_links_are_followed(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    (other / 'link').symlink_to(folder, target_is_directory=True)
    assert len(ImageFolder(str(other))) == 4


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist.*root"):
        ImageFolder(str(tmp_path / 'nowhere'))


def test_folder_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no images in .*\.jpg \.jpeg .*found 0 other'):
        ImageFolder(str(tmp_path))
    (tmp_path / 'a.npy').write_text('x')
    with pytest.raises(FileNotFoundError, match=r'found 1 other file\(s\): 1 \.npy'):
        ImageFolder(str(tmp_path))


def test_truncated_image_is_named_or_replaced(folder):
    bad = folder / 'a' / 'ünï.png'
    bad.write_bytes(bad.read_bytes()[:30])
    with pytest.raises(CorruptImageError, match='ünï.png'):
        ImageFolder(str(folder)).image(1)
    source = ImageFolder(str(folder), on_corrupt='skip')
    with pytest.warns(UserWarning, match=r'ünï\.png cannot be decoded.*one\.JPG instead'):
        assert source.image(1).max() == 10
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert source.image(1).max() == 10
    assert source.substitutes == {1: 2}


def test_the_label_follows_the_substitute(folder):
    (folder / 'c.png').unlink()
    (folder / 'a' / 'deep' / 'er' / 'one.JPG').write_bytes(b'')
    source = ImageFolder(str(folder), labels=True, on_corrupt='skip')
    with pytest.warns(UserWarning, match='instead'):
        assert source.sample(1)[1] == 1


def test_all_images_damaged(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'x')
    with pytest.raises(CorruptImageError, match='none of the 1 images'):
        ImageFolder(str(tmp_path), on_corrupt='skip').image(0)


def test_bad_arguments(folder):
    with pytest.raises(ValueError, match='on_corrupt'):
        ImageFolder(str(folder), on_corrupt='ignore')
    with pytest.raises(ValueError, match="got 'BGR'"):
        ImageFolder(str(folder), mode='BGR')
    with pytest.raises(IndexError, match='image 4 was asked for'):
        ImageFolder(str(folder)).image(4)


@pytest.fixture
def imagenet(tmp_path):
    for wnid in ('n02', 'n01'):
        for k in (3, 1, 10, 2):
            write(tmp_path / 'train' / wnid / f'{wnid}_{k}.JPEG', k)
    return tmp_path


def test_imagenet_order_and_labels(imagenet):
    source = ImageNet(str(imagenet))
    assert source.classes == ['n01', 'n02']
    assert source.labels.tolist() == [0] * 4 + [1] * 4
    assert [source.paths[i] for i in range(4)] == [f'n01/n01_{k}.JPEG' for k in (1, 10, 2, 3)]
    assert source.image(1).max() == 10


def test_subset_and_its_complement_meet_without_a_gap(imagenet):
    first = ImageNet(str(imagenet), images_per_class=2)
    other = ImageNet(str(imagenet), images_per_class=2, held_out=True)
    assert [first.paths[i] for i in range(4)] == [f'{c}/{c}_{k}.JPEG' for c in ('n01', 'n02') for k in (1, 10)]
    assert [other.paths[i] for i in range(4)] == [f'{c}/{c}_{k}.JPEG' for c in ('n01', 'n02') for k in (2, 3)]
    assert other.labels.tolist() == [0, 0, 1, 1]


def test_imagenet_errors(imagenet):
    (imagenet / 'train' / 'n03').symlink_to('n01')
    with pytest.raises(ValueError, match="ImageNet: 'n01' and 'n03' in .* are one folder: remove the link"):
        ImageNet(str(imagenet))
    (imagenet / 'train' / 'n03').unlink()
    with pytest.raises(FileNotFoundError, match=r"images 3 to 5 wanted in .*n01', which has 4"):
        ImageNet(str(imagenet), images_per_class=3, held_out=True)
    with pytest.raises(FileNotFoundError, match=r"val' does not exist.*<wnid>"):
        ImageNet(str(imagenet), split='val')
    (imagenet / 'val').mkdir()
    (imagenet / 'val' / 'ILSVRC2012_val_1.JPEG').write_bytes(b'')
    with pytest.raises(FileNotFoundError, match='no class folders .*1 entries.*sorted into class folders'):
        ImageNet(str(imagenet), split='val')
    with pytest.raises(ValueError, match='give images_per_class'):
        ImageNet(str(imagenet), held_out=True)
    with pytest.raises(ValueError, match="split is 'train' or 'val', got 'test'"):
        ImageNet(str(imagenet), split='test')


def test_expected_length():
    assert ImageNet.expected_length(split='train', images_per_class=260, root='anywhere') == 260000
    assert ImageNet.expected_length() == 1281167
    assert ImageFolder.expected_length(root='x') is None
