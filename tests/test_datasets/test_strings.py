"""Strings in two arrays: the same ones, whatever they are asked for."""

import os
import pickle

import numpy as np
import pytest

from mmkernel.datasets.strings import Strings


def test_strings_are_a_sequence_of_two_arrays():
    given = ['a/b', '', 'dög.jpg', os.fsdecode(b'\xff.png')]
    strings = Strings.of(given)
    assert list(strings) == given
    assert strings[-1] == given[-1]
    assert list(pickle.loads(pickle.dumps(strings))) == given
    assert len(Strings.of([])) == 0
    with pytest.raises(IndexError):
        strings[4]
    strings.check(4)
    for count, offsets in (
        (3, strings.offsets), (4, strings.offsets + 1), (4, strings.offsets[::-1]), (4, strings.offsets.astype(np.int32)),
        (-1, np.empty(0, np.int64)), (4, np.where(strings.offsets == 3, 99, strings.offsets)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match='lead out of the text'):
            Strings(strings.data, offsets).check(count)
