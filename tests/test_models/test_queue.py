"""The ring of earlier rows: first in, first out, whatever the sizes of the batches."""

import pytest
import torch

from mmkernel.models import FeatureQueue


def test_the_queue_is_first_in_first_out_per_view_and_in_stripes():
    queue = FeatureQueue(6, 2, views=2)
    torch.testing.assert_close(queue.rows.norm(dim=-1), torch.ones(2, 6))
    assert torch.equal(queue.rows, FeatureQueue(6, 2, views=2).rows)  # every rank starts alike
    for step in range(4):
        assert queue.full == (step >= 3)
        queue.enqueue(torch.full((2, 2, 2), float(step)) + torch.tensor([0.0, 10.0])[:, None, None])
    assert queue.rows[0, :, 0].tolist() == [3, 3, 1, 1, 2, 2]
    assert queue.rows[1, :, 0].tolist() == [13, 13, 11, 11, 12, 12]
    assert int(queue.pointer) == 2
    queue.rows.copy_(torch.arange(6.0)[None, :, None].expand(2, 6, 2))
    assert queue.stripe(1, 2)[0, :, 0].tolist() == [1, 3, 5]
    with pytest.raises(ValueError, match='4 processes cannot share a queue of length 6'):
        queue.stripe(0, 4)


@pytest.mark.parametrize('sizes', [(16, 16, 16, 12), (16, 1), (3,), (64, 7), (100,), (40, 50, 130)])
def test_any_sequence_of_batches_leaves_the_last_rows(sizes):
    queue, sent, number = FeatureQueue(64, 1, views=2), [], 0
    for size in sizes * 9:
        rows = torch.arange(number, number + size, dtype=torch.float32)
        queue.enqueue(torch.stack([rows, -rows])[..., None])
        sent, number = [*sent, *rows.tolist()][-64:], number + size
        oldest_first = queue.rows[0, :, 0].roll(-int(queue.pointer))
        assert oldest_first[64 - len(sent) :].tolist() == sent
        assert torch.equal(queue.rows[1], -queue.rows[0]) or number < 64
        assert int(queue.stored) == min(number, 64)
        assert int(queue.pointer) == number % 64
        assert queue.full == (number >= 64)


def test_nothing_is_read_from_the_device():
    queue = FeatureQueue(8, 2).to('meta')  # a meta tensor has no value to read
    queue.enqueue(torch.zeros(1, 3, 2, device='meta'))


def test_a_queue_of_an_earlier_version_goes_on():
    state = FeatureQueue(8, 2).state_dict()
    assert set(state) == {'rows', 'pointer', 'stored', 'enabled'}
    state['pointer'], state['stored'] = torch.tensor(6), torch.tensor(6)
    queue = FeatureQueue(8, 2)
    queue.load_state_dict(state)
    queue.enqueue(torch.full((1, 4, 2), 7.0))
    assert queue.rows[0, :, 0].eq(7).tolist() == [True, True, False, False, False, False, True, True]
    assert queue.full


def test_a_length_that_no_batch_divides_is_refused_before_training():
    FeatureQueue(24, 2).check_batch(8)
    with pytest.raises(ValueError, match='length 20 is not a multiple of the global batch of 8 rows. Use length = 16'):
        FeatureQueue(20, 2).check_batch(8)
    with pytest.raises(ValueError, match=r'rows of 1 target view.s., the batch has 2'):
        FeatureQueue(8, 2).enqueue(torch.zeros(2, 3, 2))
    with pytest.raises(ValueError, match='rows of width 2, the neck gives 3'):
        FeatureQueue(8, 2).enqueue(torch.zeros(1, 3, 3))
