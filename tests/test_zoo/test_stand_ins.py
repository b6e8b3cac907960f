"""Objects beside the tensors of a file: an empty stand-in takes their place, nothing runs, and what is refused is named."""

import argparse
import collections
import dataclasses
import datetime
import enum
import functools
import logging
import os
import pathlib
import pickle
import re
import sys
import types
import uuid

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from torch import nn

from mmkernel.zoo import CheckpointError, load_file, read_checkpoint
from mmkernel.zoo.stand_ins import StandIn


class Strange(dict):
    """Of a library that is not installed here: a dict with state of its own."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.__dict__['flags'] = dict(readonly=False)


class Names(list):
    pass


class Node:
    """As omegaconf keeps its values: state with a reference to a function of typing, and to itself."""

    def __init__(self):
        self.metadata, self.parent = dict(type=dict, any=list[int]), self


class Slots:
    __slots__ = ('a',)

    def __init__(self):
        self.a = 1


@dataclasses.dataclass
class Arguments:
    lr: float = 0.1
    path: pathlib.Path = pathlib.Path('/x')


class Mode(enum.Enum):
    ONE = 'one'


BESIDE = {
    'namespace': argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath('/x'), more=argparse.Namespace(a=[1])),
    'simple namespace': types.SimpleNamespace(a=1), 'path': pathlib.Path('/x/y'), 'windows path': pathlib.PureWindowsPath('c:/x'),
    'dataclass': Arguments(), 'slots': Slots(), 'enum': Mode.ONE, 'partial': functools.partial(dict, a=1),
    'defaultdict': collections.defaultdict(list, a=[1]), 'deque': collections.deque([1.0, 2.0], maxlen=3),
    'counter': collections.Counter('aab'), 'ordered': collections.OrderedDict(a=1), 'frozenset': frozenset((1, 2)),
    'time': datetime.datetime(2024, 1, 2), 'span': datetime.timedelta(1), 'id': uuid.UUID(int=3), 'pattern': re.compile('a'),
    'logger': logging.getLogger('x'), 'slice': slice(1, 2), 'range': range(3), 'type': int, 'class': Arguments,
    'size': torch.Size((1, 2)), 'device': torch.device('cpu'), 'dtype': torch.float16, 'version': torch.__version__,
    'numpy scalars': [np.float64(1.5), np.int64(2), np.bool_(True), np.float32(3)], 'a numpy dtype': np.dtype('f4'),
    'numpy texts': np.array(['a', 'b']), 'numpy objects': np.array([dict(a=1), None], object),
    'state of numpy': np.random.RandomState(0), 'generator of numpy': np.random.default_rng(0),
    'histories': {'train/loss': HistoryBuffer([1.0, 2.0], [1, 1])}, 'mmengine': Config(dict(a=dict(b=1))),
    'mmengine dict': ConfigDict(a=dict(b=[1])), 'easydict': Strange(a=Strange(b=1)), 'list': Names(['a']), 'omegaconf': Node(),
    'a bound method': {}.get, 'module': nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), 'loss': nn.CrossEntropyLoss(),
    'function of torch': nn.functional.relu,
}  # fmt: skip


@pytest.mark.parametrize('old', [False, True])
@pytest.mark.parametrize('kind', BESIDE)
def test_the_tensors_load_whatever_stands_beside_them(tmp_path, kind, old, monkeypatch):
    net, path = nn.Linear(3, 2), tmp_path / 'w.pth'
    content = dict(epoch=3, hyper_parameters=dict(deep=[BESIDE[kind]], it=BESIDE[kind]), state_dict=net.state_dict())
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    for name in ('Strange', 'Names', 'Node', 'Slots', 'Arguments', 'Mode'):  # the library is not installed here
        monkeypatch.delattr(sys.modules[__name__], name)
    model = nn.Linear(3, 2)
    if old and isinstance(BESIDE[kind], nn.Module):
        with pytest.raises(CheckpointError, match='a whole model .as torch up to 1.5 wrote it.'):
            load_file(model, path)
        return
    report = str(load_file(model, path))
    assert torch.equal(model.weight, net.weight)
    assert report.startswith('2/2 tensors')


def test_the_report_names_what_was_not_loaded(tmp_path):
    net = nn.Linear(3, 2)
    torch.save(dict(args=argparse.Namespace(a=1), loss=nn.MSELoss(), state_dict=net.state_dict()), tmp_path / 'w.pth')
    said = "objects that are not loaded: argparse.Namespace ('args'), torch.nn.modules.loss.MSELoss ('loss')"
    assert said in str(load_file(nn.Linear(3, 2), tmp_path / 'w.pth'))


def test_arrays_of_numpy_are_weights_too(tmp_path):
    net = nn.Linear(3, 2)
    arrays = {key: value.numpy() for key, value in net.state_dict().items()}
    arrays['weight'] = np.asfortranarray(arrays['weight'])
    arrays['bias'] = arrays['bias'].astype('>f4')
    for old in (False, True):
        torch.save(dict(model=arrays), tmp_path / 'w.pth', _use_new_zipfile_serialization=not old)
        model = nn.Linear(3, 2)
        load_file(model, tmp_path / 'w.pth')
        assert torch.equal(model.weight, net.weight)
        assert torch.equal(model.bias, net.bias)


def test_a_stand_in_holds_nothing_and_is_no_object_of_the_class(tmp_path):
    torch.save(dict(a=argparse.Namespace(lr=0.1), w=torch.ones(1)), tmp_path / 'w.pth')
    found = read_checkpoint(tmp_path / 'w.pth')['a']
    assert isinstance(found, StandIn)
    assert not isinstance(found, argparse.Namespace)
    assert vars(found) in ({}, dict(whole=False))


def test_a_whole_model_is_refused_by_its_name(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2))
    said = (
        r'whole model \(torch.nn.modules.container.Sequential\).*can run code.*torch.save\(model.state_dict\(\), FILE\)'
    )
    torch.save(net, tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=said):
        read_checkpoint(tmp_path / 'w.pth')
    torch.save(dict(epoch=1, model=net), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=said):
        load_file(nn.Linear(2, 2), tmp_path / 'w.pth')
    torch.save(argparse.Namespace(), tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match=r"'.*w.pth' holds an object of argparse.Namespace; expected a dict"):
        read_checkpoint(tmp_path / 'w.pth')


class Call:
    def __init__(self, *parts):
        self.parts = parts

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize(('call', 'name'), [
    (Call(os.mkdir, ('ran',)), 'mkdir'), (Call(open, ('ran', 'w')), 'io.open'), (Call(eval, ('1',)), 'builtins.eval'),
    (Call(torch.load, ('x',)), 'torch.serialization.load'), (Call(pickle.loads, (b'x',)), 'pickle.loads'),
    (Call(__import__, ('antigravity',)), 'builtins.__import__'),
])  # fmt: skip
def test_names_of_functions_are_refused(tmp_path, monkeypatch, call, name):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict=nn.Linear(2, 2).state_dict(), extra=[argparse.Namespace(a=call)]), 'w.pth')
    with pytest.raises(CheckpointError, match=rf"'w.pth' asks for \S*{name}, .*loading one can run code"):
        read_checkpoint('w.pth')
    assert os.listdir() == ['w.pth']


def test_a_file_of_many_classes_ends(tmp_path, monkeypatch):
    monkeypatch.setattr('mmkernel.zoo.stand_ins.MOST_CLASSES', 3)
    torch.save(
        dict(a=[argparse.Namespace(), pathlib.Path(), Mode.ONE, Arguments(), Slots()], w=torch.ones(1)),
        tmp_path / 'w.pth',
    )
    with pytest.raises(CheckpointError, match='Only 3 classes'):
        read_checkpoint(tmp_path / 'w.pth')


class Own(torch.Tensor):
    """As some libraries mark their images."""


def test_tensors_that_are_not_plain_are_named(tmp_path):
    torch.save(dict(w=torch.ones(2).as_subclass(Own)), tmp_path / 'w.pth')
    with pytest.raises(
        CheckpointError, match=r"w.pth' holds tensors of a class of their own, .*as_subclass\(torch.Tensor\)"
    ):
        read_checkpoint(tmp_path / 'w.pth')
    with (
        torch.serialization.safe_globals([Own]),
        pytest.raises(CheckpointError, match='holds tensors of the class Own'),
    ):
        read_checkpoint(tmp_path / 'w.pth')


def test_other_forms_of_pickles_are_told_apart(tmp_path):
    torch.save(dict(w=torch.ones(1)), tmp_path / 'w.pth', pickle_protocol=4)
    with pytest.raises(CheckpointError, match='protocol 4 of pickle. Only 2 and 3'):
        read_checkpoint(tmp_path / 'w.pth')
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(tmp_path / 'w.pth')
    with pytest.raises(CheckpointError, match='is a program of TorchScript'):
        read_checkpoint(tmp_path / 'w.pth')
    (tmp_path / 'w.pth').write_text('<!DOCTYPE html><html><body>404</body></html>')
    with pytest.raises(
        CheckpointError, match=r"w.pth' \(44 bytes\) is damaged or not a checkpoint: Unsupported operand 60.$"
    ):
        read_checkpoint(tmp_path / 'w.pth')
