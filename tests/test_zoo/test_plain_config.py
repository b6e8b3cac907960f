"""Nothing that comes inside a file of weights is run: no config, no class by its path, no other download."""

import pytest
from exported import config

from mmkernel.engine import load_config
from mmkernel.zoo import Encoder
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.plain_config import ConfigTextError, plain_config


def test_the_text_of_every_config_here_is_plain(repository):
    for path in sorted(repository.glob('configs/*/digits*.py')):
        values = load_config(path).to_dict()
        assert plain_config(config_text(values), path.name) == values


def test_values():
    text = '"""Words."""\na = dict(b=[1, -2.5, (3,)], c={"d e": None})\nf = float(\'-inf\')\n'
    assert plain_config(text, 'x') == dict(a=dict(b=[1, -2.5, (3,)], c={'d e': None}), f=float('-inf'))


@pytest.mark.parametrize(
    'text',
    [
        'import os',
        'a = {1, 2}',
        'a = {(1, 2): 3}',
        'a = b = 1',
        'a = 1; a = 2',
        'a = 1 + 1j',
        'a = b"x"',
        'a = {1: 2, 1: 3}',
        'a = __import__("os").system("true")',
        'a = dict(b=open("x", "w"))',
        'a = [x for x in (1, 2)]',
        'a = dict(**b)',
        'a = {**b}',
        'a = float(open("x"))',
        'def f(): pass',
        'a.b = 1',
        'a = (',
    ],
)
def test_code(text):
    with pytest.raises(ConfigTextError, match="the config inside 'x.pth'"):
        plain_config(text, 'x.pth')


def test_a_function_by_its_path():
    with pytest.raises(ConfigTextError, match=r"type='os.system'.*--config"):
        plain_config("model = dict(parts=[dict(type='os.system', command='true')])", 'x.pth')


def test_weights_of_timm_are_not_fetched_for_an_export():
    cfg = config('resnet')
    cfg['model']['backbone']['pretrained'] = True
    assert 'pretrained' not in Encoder.from_config(cfg).options
