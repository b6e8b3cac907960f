"""Weights whose name tells their hash, and pinned ones, are read whole before they are used, wherever they lie."""

import hashlib
import pickle
from pathlib import Path

import pytest
import timm
import torch
from exported import BACKBONES, config, encoder

from mmkernel.cli import main
from mmkernel.cli.named_encoder import load_trained
from mmkernel.engine import load_checkpoint
from mmkernel.hashes import hash_in_name
from mmkernel.registry import MODELS
from mmkernel.zoo import CheckpointError, HashMismatchError, load, load_file, read_checkpoint
from mmkernel.zoo.config_text import config_text
from mmkernel.zoo.pins import Pins

KINDS = ('.pth', '.pth.tar', 'old.pth', '.safetensors', '.pkl')


def write(folder, kind, digest='sha256', length=8):
    """A file of an encoder named by its hash; 'old.pth' is the format of torch < 1.6, which has no checksums."""
    net, plain = encoder('small'), folder / f'plain{kind}'
    state = net.backbone.state_dict()
    if kind == '.safetensors':
        main(['export', str(plain_checkpoint(folder)), '--to', 'safetensors', '--out', str(plain)])
    elif kind == '.pkl':
        plain.write_bytes(pickle.dumps(dict(model={key: value.numpy() for key, value in state.items()})))
    else:
        torch.save(dict(state_dict=state), plain, _use_new_zipfile_serialization=kind != 'old.pth')
    found = hashlib.new(digest, plain.read_bytes()).hexdigest()[:length]
    return plain.rename(folder / f'net-{found}{kind.removeprefix("old")}')


def plain_checkpoint(folder):
    path = folder / 'epoch_1.pth'
    state = {f'backbone.{key}': value for key, value in encoder('small').backbone.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict(config=config_text(config('small')))), path)
    return path


def flip(path):
    """One bit of the last tensor."""
    content = bytearray(path.read_bytes())
    content[-200 if path.suffix == '.pkl' else len(content) * 3 // 4] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('kind', KINDS)
def test_a_flipped_bit_is_found(tmp_path, kind):
    path = write(tmp_path, kind)
    read_checkpoint(path)
    found = hashlib.sha256(flip(path).read_bytes()).hexdigest()[:8]
    with pytest.raises(
        HashMismatchError, match=f'has the sha256 {found}, its name says {hash_in_name(path)}.*again.*rename'
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(('digest', 'length'), [('sha256', 64), ('sha256', 12), ('md5', 8), ('md5', 32)])
def test_other_lengths_and_letters(tmp_path, digest, length):
    path = write(tmp_path, '.pth', digest, length)
    path = path.rename(path.with_name(f'net-{hash_in_name(path).upper()}.PTH'))
    read_checkpoint(path)
    with pytest.raises(HashMismatchError):
        read_checkpoint(flip(path))


def test_every_door(tmp_path):
    path = flip(write(tmp_path, '.safetensors'))
    net = encoder('small').backbone
    doors = [
        load, lambda path: load_file(net, path), lambda path: load_checkpoint(net, path),
        lambda path: load(path, config('small')), lambda path: load_trained(net, path, 'neck'),
    ]  # fmt: skip
    for door in doors:
        with pytest.raises(HashMismatchError, match='its name says'):
            door(path)
    for command in (
        ['diagnose'],
        ['export', '--to', 'onnx'],
        ['publish', '--name', 'x'],
        ['import', '--arch', 'resnet18'],
    ):
        with pytest.raises(SystemExit, match='its name says'):
            main([command[0], str(path), *command[1:]])


@pytest.mark.parametrize('key', ['checkpoint_path', 'pretrained_cfg', 'pretrained_cfg_overlay'])
def test_files_that_timm_reads(tmp_path, key):
    options = dict(BACKBONES['small'], small_images=False)
    path = tmp_path / 'net.pth'
    torch.save(MODELS.build(dict(options)).state_dict(), path)
    path = path.rename(tmp_path / f'net-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth')
    value = str(path) if key == 'checkpoint_path' else dict(file=str(path), num_classes=0, input_size=(1, 28, 28))
    options |= {key: value, 'pretrained': key != 'checkpoint_path'}
    MODELS.build(dict(options))
    flip(path)
    with pytest.raises(ValueError, match='its name says'):
        MODELS.build(dict(options))


def test_files_that_torch_hub_keeps(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    url = timm.get_pretrained_cfg('resnet18').url
    (tmp_path / 'checkpoints').mkdir()
    (tmp_path / 'checkpoints' / Path(url).name).write_bytes(b'other')
    with pytest.raises(ValueError, match='its name says'):
        MODELS.build(dict(type='TIMMBackbone', model_name='resnet18', pretrained=True))


@pytest.mark.parametrize(
    ('name', 'found'),
    [
        ('resnet50-0676ba61.pth', '0676ba61'),
        ('mocov3_vit-base-p16_20220826-25213343.pth', '25213343'),  # digits only, and no date
        ('a-0123456789abcdef.pth.tar', '0123456789abcdef'),
        ('run-20260131.pth', None),
        ('run-20260131123000.pth', None),
        ('iter-00010000.pth', None),
        ('a-0676ba6.pth', None),
        ('a_0676ba61.pth', None),
        ('a-0676ba61_timm.safetensors', None),
        ('0676ba61.pth', None),
        ('epoch_20.pth', None),
    ],
)
def test_which_names_tell_a_hash(name, found):
    assert hash_in_name(Path(name)) == found


def test_a_pinned_file_of_the_cache(tmp_path, monkeypatch):
    """By its path too, and although neither size nor time of change tell."""
    monkeypatch.setenv('MMKERNEL_HOME', str(tmp_path))
    path = tmp_path / 'weights/some_model/net.pth'
    path.parent.mkdir(parents=True)
    torch.save(timm.create_model('resnet18', num_classes=0).state_dict(), path, _use_new_zipfile_serialization=False)
    read_checkpoint(path)
    Pins().pin('some_model/net.pth', hashlib.sha256(path.read_bytes()).hexdigest(), 'first use')
    read_checkpoint(path)
    with pytest.raises(CheckpointError, match='at its first use on .* it had .*fetch it again'):
        read_checkpoint(flip(path))
