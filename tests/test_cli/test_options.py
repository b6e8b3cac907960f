"""--cfg-options: what the shell hands over -> Python values."""

import re

import pytest
import torch

from mmkernel.cli.options import option_value, options_of, usable_device


@pytest.mark.parametrize(
    'text, value',
    [
        ('1', 1),
        ('1e-3', 1e-3),
        ('None', None),
        ('true', True),
        ('False', False),
        ('(1.,40.)', (1.0, 40.0)),
        ('1,2', (1, 2)),
        ('[a,b]', ['a', 'b']),
        ("{'type': 'X', 'n': [1]}", {'type': 'X', 'n': [1]}),
        ('dict(b=2, c=dict(d=[1]))', {'b': 2, 'c': {'d': [1]}}),
        ('/my photos/of, cats', '/my photos/of, cats'),
        ('a=b', 'a=b'),
        ('', ''),
    ],
)
def test_values(text, value):
    assert option_value(text) == value
    assert type(option_value(text)) is type(value)


def test_pairs():
    assert options_of(['a.b=1', 'c=x=y']) == {'a.b': 1, 'c': 'x=y'}


@pytest.mark.parametrize('argument', ['a.b', '=3'])
def test_not_a_pair(argument):
    with pytest.raises(ValueError, match='KEY=VALUE'):
        options_of([argument])


def test_a_broken_dict_is_not_taken_for_a_string():
    with pytest.raises(ValueError, match='not a dict'):
        option_value("{'type': ImageFolder}")


def test_a_device_that_is_not_there():
    assert usable_device('cpu') == usable_device('auto') == 'cpu'
    with pytest.raises(ValueError, match="'gpu' cannot be used here; there is cpu"):
        usable_device('gpu')
    with pytest.raises(ValueError, match="'cuda' cannot be used here; there is cpu"):
        usable_device('cuda')


def test_a_gpu_is_not_touched_before_each_process_has_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)  # without a driver: an allocation would raise
    assert [usable_device(name) for name in ('auto', 'cuda:1')] == ['cuda', 'cuda:1']
    with pytest.raises(ValueError, match="'cuda:2' cannot be used here; there is cpu, cuda:0, cuda:1"):
        usable_device('cuda:2')


@pytest.mark.parametrize(
    'pairs, place',
    [
        (('a.b=1', 'a.b=2'), 'a.b'),
        (('a.b=1', 'a=dict(b=2)'), 'a.b'),
        (("a={'b': {'c': 1}}", 'a.b.c=2'), 'a.b.c'),
        (('a=dict(b=1)', 'a=dict(b=2)'), 'a.b'),
        (('a=1', 'a=[1]'), 'a'),
    ],
)
def test_two_options_that_contradict_each_other_are_refused(pairs, place):
    with pytest.raises(ValueError, match=f'different things of {re.escape(place)}:'):
        options_of(pairs)


def test_options_that_agree_or_go_together_pass():
    assert options_of(['a.b=1', 'a.b=1']) == {'a.b': 1}
    assert options_of(['a.b=1', 'a=dict(c=2)']) == {'a.b': 1, 'a': {'c': 2}}
