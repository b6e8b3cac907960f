import copy

import pytest
import torch
from torch import nn

from mmkernel.models.state import HostCounters


class Counting(HostCounters):
    counters = ('steps',)

    def __init__(self):
        super().__init__()
        self.layer, self.steps = nn.Linear(2, 1), 0


def test_state_dict_holds_them_as_a_buffer_would_be():
    model = nn.Sequential(Counting())
    model[0].steps = 7
    state = model.state_dict()
    assert set(state) == {'0.layer.weight', '0.layer.bias', '0.steps'}
    assert torch.equal(state['0.steps'], torch.tensor(7))
    other = nn.Sequential(Counting())
    other.load_state_dict(state)
    assert other[0].steps == 7
    assert copy.deepcopy(other)[0].steps == 7


def test_missing_and_unexpected_keys():
    state = Counting().state_dict()
    del state['steps']
    with pytest.raises(RuntimeError, match='Missing key.*steps'):
        Counting().load_state_dict(state)
    with pytest.raises(RuntimeError, match='Unexpected key.*other'):
        Counting().load_state_dict({**Counting().state_dict(), 'other': torch.zeros(1)})
