"""The owner of the step: accumulation, precision, clipping, the finite check, and ``stepped``."""

import math

import pytest
import torch

from mmkernel.engine import NonFiniteLossError, PretrainOptimWrapper


def problem(**settings):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), **settings)
    return model, wrapper


def step(model, wrapper, batch):
    with wrapper.optim_context(model):
        loss = model(batch).square().mean()
    wrapper.update_params(loss)
    return wrapper.stepped


def test_windows_of_an_epoch_equal_big_batches():
    """Windows of 2, 2 and 1 in each epoch of 5 batches equal batches of 8, 8 and 4 images."""
    torch.manual_seed(1)
    data = torch.randn(2, 5, 4, 3)
    small, accumulated = problem(accumulative_counts=2)
    accumulated.epoch_length = 5
    accumulated.initialize_count_status(small, 0, 10)
    stepped = [step(small, accumulated, batch) for epoch in data for batch in epoch]
    big, plain = problem()
    for epoch in data:
        for window in (epoch[:2], epoch[2:4], epoch[4:]):
            step(big, plain, window.flatten(0, 1))
    assert stepped == [False, True, False, True, True] * 2
    torch.testing.assert_close(small.weight, big.weight)


def test_gradients_are_exchanged_only_where_a_window_closes():
    model, wrapper = problem(accumulative_counts=2)
    wrapper.epoch_length = 3
    wrapper.initialize_count_status(model, 3, 6)
    exchanged = []
    for _ in range(3):
        exchanged.append(wrapper.should_sync())
        step(model, wrapper, torch.ones(1, 3))
    assert exchanged == [False, True, True]


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_after_a_non_finite_loss_nothing_moves_and_check_says_which(value):
    model, wrapper = problem()
    assert step(model, wrapper, torch.ones(1, 3))
    wrapper.check()
    before = model.weight.detach().clone()
    wrapper.on_non_finite.append(lambda loss, iteration, alone: f'seen {loss} at {iteration}')
    wrapper.update_params(model(torch.ones(1, 3)).square().sum() * float(value))
    assert step(model, wrapper, torch.ones(1, 3))  # an attempt
    assert not wrapper.real
    assert torch.equal(model.weight, before)
    with pytest.raises(NonFiniteLossError, match=f'iteration 1 is {value}.*learning rate.*seen {value} at 1'):
        wrapper.check()


def test_bfloat16_is_used_in_the_forward_pass_and_weights_stay_float32():
    model, wrapper = problem(precision='bfloat16')
    with wrapper.optim_context(model):
        assert model(torch.ones(1, 3)).dtype == torch.bfloat16
    assert step(model, wrapper, torch.ones(2, 3))
    assert model.weight.dtype == torch.float32


def test_clipping_bounds_the_gradient_and_leaves_the_config_alone():
    clip = dict(type='norm', max_norm=1e-3)
    model, wrapper = problem(clip_grad=clip)
    before = model.weight.detach().clone()
    step(model, wrapper, torch.full((1, 3), 100.0))
    assert (model.weight - before).norm() <= 0.1 * 1e-3 * 1.001
    assert clip == dict(type='norm', max_norm=1e-3)


def test_bad_precision_names_the_choices():
    with pytest.raises(ValueError, match='float32, bfloat16, float16'):
        problem(precision='half')
    with pytest.raises(ValueError, match='needs a GPU.*bf16'):
        problem(precision='float16')


def test_state_round_trips():
    model, wrapper = problem()
    step(model, wrapper, torch.ones(1, 3))
    other, again = problem()
    again.load_state_dict(wrapper.state_dict())
    buffers = [w.optimizer.state[m.weight]['momentum_buffer'] for m, w in ((model, wrapper), (other, again))]
    torch.testing.assert_close(*buffers)


@pytest.mark.gpu
def test_float16_says_when_the_scaler_skipped_the_step():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2, device='cuda')
    wrapper = PretrainOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), precision='float16')
    assert step(model, wrapper, torch.ones(2, 3, device='cuda'))
    before = model.weight.detach().clone()
    loss = model(torch.ones(2, 3, device='cuda')).square().mean() * 1e36  # finite, but its scaled gradient is not
    wrapper.update_params(loss)
    assert wrapper.stepped  # the attempt
    assert not wrapper.real
    assert torch.equal(model.weight, before)
    assert 'loss_scaler' in wrapper.state_dict()


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(accumulative_counts=0), 'accumulative_counts=0'),
        (dict(accumulative_counts=1.5), 'accumulative_counts=1.5'),
        (dict(clip_grad=dict(max_norm=0)), 'clip_grad.max_norm=0'),
        (dict(clip_grad=dict(max_norm=math.nan)), 'clip_grad.max_norm=nan'),
        (dict(clip_grad=dict(max_norm=1.0, norm_type=-1)), 'clip_grad.norm_type=-1'),
        (dict(clip_grad=dict(type='value', clip_value=-1)), 'clip_grad.clip_value=-1'),
        (dict(clip_grad=dict()), 'clip_grad.max_norm=None'),
        (dict(clip_grad=dict(type='nrm', max_norm=1.0)), "clip_grad.type is 'norm' or 'value'"),
    ],
)
def test_a_step_without_meaning(settings, words):
    with pytest.raises(ValueError, match=words):
        problem(**settings)


def test_a_mistyped_word_of_clipping():
    with pytest.raises(TypeError, match="unknown keyword 'max_nrom'. Did you mean 'max_norm'"):
        problem(clip_grad=dict(max_nrom=1.0))


def test_an_infinite_norm_is_a_norm():
    assert problem(clip_grad=dict(max_norm=1.0, norm_type=math.inf))


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda p: torch.optim.SGD(p, lr=math.nan), 'SGD.lr=nan'),
        (lambda p: torch.optim.SGD(p, lr=math.inf), 'SGD.lr=inf'),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=1.5), 'SGD.momentum=1.5'),
        (lambda p: torch.optim.SGD([dict(params=p, weight_decay=-1.0)], lr=0.1), 'SGD.weight_decay=-1.0'),
        (lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=math.nan), 'AdamW.weight_decay=nan'),
        (lambda p: torch.optim.AdamW(p, lr=1e-3, eps=math.nan), 'AdamW.eps=nan'),
    ],
)
def test_groups_without_meaning(make, words):
    parameters = list(torch.nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match=f'{words}|Invalid'):
        PretrainOptimWrapper(make(parameters))
