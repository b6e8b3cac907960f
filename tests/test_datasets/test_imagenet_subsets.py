"""ImageNet-100 and Imagenette: their classes, from the whole of ImageNet or from a folder of their own."""

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import ImageNet, ImageNet100, Imagenette


@pytest.fixture(params=[ImageNet100, Imagenette])
def kind(request):
    return request.param


@pytest.fixture
def root(kind, tmp_path):
    """Each class has two images; one class more belongs to the whole of ImageNet only."""
    for wnid in (*kind.wnids, 'n01443537'):
        (tmp_path / 'train' / wnid).mkdir(parents=True)
        for k in range(2):
            Image.fromarray(np.full((4, 4, 3), k, np.uint8)).save(tmp_path / 'train' / wnid / f'{wnid}_{k}.JPEG')
    return tmp_path


def test_classes_are_ids_in_sorted_order(kind):
    assert len(kind.wnids) == len(set(kind.wnids)) == {ImageNet100: 100, Imagenette: 10}[kind]
    assert list(kind.wnids) == sorted(kind.wnids)
    assert all(wnid[0] == 'n' and len(wnid) == 9 and wnid[1:].isdigit() for wnid in kind.wnids)


def test_other_classes_are_left_out(kind, root):
    assert 'n01443537' not in kind.wnids
    source = kind(str(root))
    assert source.classes == list(kind.wnids)
    assert source.labels.tolist() == np.repeat(np.arange(len(kind.wnids)), 2).tolist()
    assert len(ImageNet(str(root))) == len(source) + 2
    assert len(kind(str(root), images_per_class=1)) == len(kind.wnids)


def test_a_missing_class_is_named(kind, root):
    gone = kind.wnids[3]
    (root / 'train' / gone).rename(root / 'elsewhere')
    with pytest.raises(
        FileNotFoundError, match=f'{kind.__name__}: 1 of its {len(kind.wnids)} class folders .*: {gone}'
    ):
        kind(str(root))


def test_expected_length(kind):
    assert kind.expected_length() == {ImageNet100: 126689, Imagenette: 9469}[kind]
    assert kind.expected_length(split='val') == {ImageNet100: 5000, Imagenette: 3925}[kind]
    assert kind.expected_length(images_per_class=5) == 5 * len(kind.wnids)
