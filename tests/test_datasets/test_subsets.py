"""Parts of a source: balanced, seeded, nested, or by a list of names."""

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import Digits, Subset

DIGITS = dict(type='Digits', split='test')


def test_per_class_and_fraction_are_balanced():
    few = Subset(DIGITS, per_class=3)
    assert np.bincount(few.labels).tolist() == [3] * 10
    tenth = Subset(DIGITS, fraction=0.1)
    counts = np.bincount(Digits('test').labels)
    assert np.bincount(tenth.labels).tolist() == [max(1, round(0.1 * c)) for c in counts]
    assert np.bincount(Subset(DIGITS, fraction=1e-6).labels).tolist() == [1] * 10
    assert len(Subset(DIGITS, fraction=1.0)) == 360


def test_images_labels_and_names_are_the_sources():
    source = Digits('test')
    part = Subset(source, per_class=2, seed=1)
    assert part.classes == source.classes
    assert (np.diff(part.rows) > 0).all()
    for i, row in enumerate(part.rows.tolist()):
        assert (part.image(i) == source.image(row)).all()
        assert (part.label(i), part.name(i)) == (source.label(row), source.name(row))
    with pytest.raises(IndexError):
        part.sample(20)


def test_draws_are_seeded_and_nested():
    rows = {n: set(Subset(DIGITS, per_class=n, seed=4).rows.tolist()) for n in (1, 4)}
    assert rows[1] < rows[4]
    assert set(Subset(DIGITS, per_class=4, seed=4).rows.tolist()) == rows[4]
    assert set(Subset(DIGITS, per_class=4, seed=5).rows.tolist()) != rows[4]
    rest = Subset(DIGITS, per_class=4, seed=4, complement=True)
    assert len(rest) == 320
    assert not rows[4] & set(rest.rows.tolist())


@pytest.fixture
def folder(tmp_path):
    for wnid in ('n01', 'n02'):
        (tmp_path / 'train' / wnid).mkdir(parents=True)
        for i in range(3):
            Image.new('RGB', (8, 8)).save(tmp_path / 'train' / wnid / f'{wnid}_{i}.JPEG')
    return tmp_path


def test_by_a_list_of_names(folder):
    source = dict(type='ImageNet', root=str(folder))
    names = folder / '1percent.txt'
    names.write_text('n02_0.JPEG\nn01_2.JPEG\n\nn02/n02_1.JPEG\n')
    part = Subset(source, names=str(names))
    assert [part.name(i).rsplit('/', 1)[1] for i in range(3)] == ['n01_2.JPEG', 'n02_0.JPEG', 'n02_1.JPEG']
    assert part.labels.tolist() == [0, 1, 1]
    names.write_text('n02_0.JPEG\nn03_7.JPEG\n')
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 names .* e\.g\. 'n03_7\.JPEG'"):
        Subset(source, names=str(names))
    with pytest.raises(FileNotFoundError, match='there is no list'):
        Subset(source, names=str(folder / 'none.txt'))
    with pytest.raises(ValueError, match='Digits has no file names'):
        Subset(DIGITS, names=str(names))


def test_without_labels_only_a_fraction_can_be_drawn(folder):
    source = dict(type='ImageFolder', root=str(folder))
    assert len(Subset(source, fraction=0.5)) == 3
    with pytest.raises(ValueError, match='6 of 6 images have no label'):
        Subset(source, per_class=1)


@pytest.mark.parametrize(
    'given, message',
    [
        (dict(), 'exactly one of'),
        (dict(fraction=0.1, per_class=1), 'exactly one of'),
        (dict(fraction=0.0), 'above 0, up to 1'),
        (dict(per_class=0), 'a number >= 1'),
        (dict(per_class=99), 'class 0 has 36 images; 99 per class'),
    ],
)
def test_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Subset(DIGITS, **given)
