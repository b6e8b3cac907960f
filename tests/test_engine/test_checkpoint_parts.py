"""A checkpoint whose parts are of the wrong kind, or too few, is named before anything is written."""

import copy

import pytest
import torch

from mmkernel.engine.checkpoint_parts import check_parts
from mmkernel.zoo import CheckpointError

SCHEDULE = dict(type='WarmupCosineLR')
WHOLE = dict(
    meta=dict(epoch=1, batch=0, seed=0, steps_per_epoch=8, world_size=2, optimizer='SGD', settings=dict(param_scheduler=SCHEDULE)),
    state_dict={}, optimizer=dict(state={}, param_groups=[]), param_schedulers=[dict(last_step=8)], message_hub={},
    random_states=[{}, {}], own_buffers=[{}, {'bn.running_mean': torch.zeros(2)}],
)  # fmt: skip


def changed(place, value):
    content = copy.deepcopy(WHOLE)
    *path, last = place.split('.')
    node = content
    for key in path:
        node = node[key]
    node[last] = value
    return content


def test_a_whole_one_passes():
    check_parts(WHOLE, 'a.pth')
    check_parts(
        {key: part for key, part in WHOLE.items() if key != 'own_buffers'}, 'a.pth'
    )  # one process; earlier versions
    check_parts(changed('meta.settings', None), 'a.pth')


@pytest.mark.parametrize(
    'place, value, said',
    [
        ('meta', None, 'meta is missing; expected a mapping'),
        ('state_dict', [], "state_dict is '[]' (list); expected a mapping"),
        ('optimizer', torch.zeros(3), 'optimizer is'),
        ('optimizer.state', torch.zeros(3), 'optimizer.state is'),
        ('message_hub', 'x', "message_hub is 'x' (str); expected a mapping"),
        ('param_schedulers', [], 'expected a list of 1, as its settings say'),
        ('param_schedulers', [None], 'expected a list of mappings'),
        ('param_schedulers', [dict(last_step=1.5)], "last_step is '1.5' (float)"),
        ('random_states', [{}], 'random_states is .* expected a list of 2 .meta.world_size'),
        ('own_buffers', [{}], 'expected a list of 2 mappings'),
        ('own_buffers', [None, None], 'expected a list of 2 mappings'),
        ('meta.seed', 2**40, 'meta.seed is'),
        ('meta.batch', 9, "meta.batch is '9' (int); expected at most the 8 steps"),
        ('meta.epoch', 'x', "meta.epoch is 'x' (str)"),
    ],
)
def test_a_part_that_is_wrong_is_named(place, value, said):
    words = said.replace('(', r'\(').replace(')', r'\)').replace('[', r'\[').replace(']', r'\]')
    with pytest.raises(CheckpointError, match=f"'a.pth' cannot be resumed: .*{words}"):
        check_parts(changed(place, value), 'a.pth')
