"""Nothing that comes inside a file of weights is run: no config, no class by its path, no other download."""

import json

import pytest
from exported import config, encoder

from mmkernel.cli import main
from mmkernel.engine import load_config
from mmkernel.zoo import load_encoder, portable_encoder, write_checkpoint
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.files import write_safetensors
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


def test_a_config_inside_a_checkpoint_is_not_run(tmp_path):
    """As the command line would: there is no config.py beside the file."""
    mark = tmp_path / 'ran'
    meta = dict(epoch=1, config=f'open({str(mark)!r}, "w")\n')
    write_checkpoint(dict(meta=meta, state_dict=encoder('small').backbone.state_dict()), tmp_path / 'epoch_1.pth')
    for command in (['export', '--to', 'torchscript'], ['diagnose']):
        with pytest.raises(SystemExit, match='is more than values'):
            main([command[0], str(tmp_path / 'epoch_1.pth'), *command[1:]])
    assert not mark.exists()


def test_a_header_calls_no_function_and_fetches_nothing(tmp_path, monkeypatch):
    net = encoder('resnet')
    tensors = {f'backbone.{key}': value for key, value in net.backbone.state_dict().items()}
    mark = tmp_path / 'ran'
    meta = net.metadata() | dict(backbone=json.dumps(dict(type='os.system', command=f'touch {mark}')))
    write_safetensors(tensors, tmp_path / 'a.safetensors', meta)
    with pytest.raises(ConfigTextError, match="type='os.system'"):
        load_encoder(tmp_path / 'a.safetensors')
    assert not mark.exists()
    meta['backbone'] = json.dumps({**net.options, 'pretrained': True, 'checkpoint_path': str(tmp_path / 'other.pth')})
    write_safetensors(tensors, tmp_path / 'b.safetensors', meta)
    load_encoder(tmp_path / 'b.safetensors')


def test_weights_of_timm_are_not_fetched_for_an_export():
    cfg = config('resnet')
    cfg['model']['backbone']['pretrained'] = True
    assert 'pretrained' not in portable_encoder(cfg).options
