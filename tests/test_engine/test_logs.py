"""What is logged waits on the device, comes to the host at once, and takes no more room after many iterations than after few."""

import io
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.hooks import IterTimerHook, LoggerHook
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import LogProcessor

from mmkernel.engine import NonFiniteLossError, Runner, load_config
from mmkernel.engine.checkpoint import to_plain
from mmkernel.engine.history import KEPT, LogHub, kept_values


def log(hub, steps, start=0):
    """As an iteration does: three values of the model together, one of a hook, two of the host."""
    for i in range(start, steps):
        loss = torch.tensor(float(i))
        hub.update_scalars({'train/loss': loss, 'train/loss_a': 2 * loss, 'train/count': torch.tensor(i)})
        hub.update_scalar('train/embedding/rank', loss)
        hub.update_scalars({'train/lr': 0.1 * i, 'train/time': dict(value=3.0, count=2)})
        hub.update_info('iter', i)


def sizes(hub):
    """Numbers held for each name, tensors that wait, and bytes of the hub in a checkpoint."""
    state = hub.state_dict()
    file = io.BytesIO()
    torch.save(to_plain({**state, 'runtime_info': sorted(state['runtime_info'])}), file)
    held = {name: (len(each.kept), each.waiting) for name, each in hub.log_scalars.items()}
    return held, len(hub._rows), len(file.getvalue())


def test_neither_the_hub_nor_its_checkpoint_grows():
    hub, most = LogHub('test_bounded'), 0
    log(hub, 100)
    few = sizes(hub)
    for thousand in range(1, 101):
        log(hub, 1000 * thousand, start=hub.get_info('iter') + 1)
        most = max(most, len(hub._rows))
    assert hub.get_info('iter') == 99_999
    assert sizes(hub) == few
    assert most <= 3 * KEPT  # rows of two calls, of two types of number
    loss = hub.get_scalar('train/loss')
    assert (loss.mean(), loss.min(), loss.max(), loss.current()) == (49_999.5, 0.0, 99_999.0, 99_999.0)
    assert loss.mean(10) == 99_994.5


def test_the_first_reader_brings_all_names_and_host_values_ask_for_nothing(monkeypatch):
    reads, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, 'tolist', lambda x: reads.append(len(x)) or tolist(x))
    for name in ('item', '__float__', '__bool__', 'numpy'):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail('the host was read'))
    hub = LogHub('test_reads')
    for i in range(50):
        x = torch.full((), float(i))
        hub.update_scalars({'train/loss': x, 'train/loss_a': x, 'train/time': 1.0})
        hub.update_scalar('train/rank', x)
        assert hub.get_scalar('train/time').current() == 1.0
        x.fill_(-1)  # what was logged is a copy
    assert reads == []
    assert [hub.get_scalar(f'train/{name}').current() for name in ('loss', 'loss_a', 'rank')] == [49.0] * 3
    assert reads == [150]
    assert hub.get_scalar('train/loss').data[0].tolist() == list(range(50))


def test_the_statistics_are_those_of_a_history_buffer():
    hub, values = LogHub('test_statistics'), [3.0, -1.0, 2.0, 5.0]
    buffer = HistoryBuffer(values, [1, 2, 1, 3])
    for value, count in zip(values, (1, 2, 1, 3), strict=True):
        hub.update_scalar('x', torch.tensor(value), count)
    history = hub.get_scalar('x')
    for method in ('mean', 'min', 'max'):
        for window in (None, 1, 2, 4, 9):
            assert history.statistics(method, window_size=window) == getattr(buffer, method)(window)
    assert history.statistics('current') == buffer.current()
    assert np.array_equal(history.data, buffer.data)
    try:
        HistoryBuffer.register_statistics(spread)
        assert history.statistics('spread') == 6.0
    finally:
        HistoryBuffer._statistics_methods.pop('spread')


def spread(self):
    return self._log_history.max() - self._log_history.min()


def test_numbers_of_host_and_device_keep_their_order_and_nan_is_one():
    hub = LogHub('test_order')
    for value in (
        1,
        torch.tensor(2.0),
        np.float32(3),
        torch.tensor([[4]]),
        torch.tensor(5.0, dtype=torch.bfloat16),
        6.0,
    ):
        hub.update_scalar('x', value)
    assert hub.get_scalar('x').data[0].tolist() == [1, 2, 3, 4, 5, 6]
    hub.update_scalar('x', torch.tensor(float('nan')))
    assert np.isnan(hub.get_scalar('x').current())
    assert np.isnan(hub.get_scalar('x').mean())
    for wrong in (torch.zeros(2), torch.zeros(0), 'text', None):
        with pytest.raises(ValueError, match="logged as 'train/x' is one number, got"):
            hub.update_scalar('train/x', wrong)


def test_the_windows_of_the_log_say_how_much_is_kept():
    assert kept_values(LogProcessor(), [LoggerHook(interval=50), IterTimerHook()], 5000) == KEPT
    assert kept_values(LogProcessor(), [LoggerHook(interval=500)], 5000) == 500
    custom = [
        dict(data_src='loss', method_name='mean', window_size=size, log_name=str(size)) for size in ('global', 300)
    ]
    assert kept_values(LogProcessor(custom_cfg=custom), [], 5000) == 300
    custom.append(dict(data_src='loss', method_name='mean', window_size='epoch'))
    assert kept_values(LogProcessor(custom_cfg=custom), [], 5000) == 5000


def test_it_is_the_hub_that_parts_without_a_runner_find():
    hub = LogHub.get_instance('test_current')
    assert MessageHub.get_current_instance() is hub
    assert MessageHub.get_instance('test_current') is hub


def test_a_run_leaves_no_log_file_open(tmp_path):
    """Many runs in one process would use up the files that it may open; what is written later still arrives."""
    for raised in (False, True):
        cfg = load_config(Path(__file__).parent / 'tiny_config.py', {'train_cfg.max_epochs': 1})
        cfg.work_dir, cfg.param_scheduler.warmup_epochs = str(tmp_path / str(raised)), 0
        if raised:
            cfg.model.bad_iteration = 2
        runner = Runner.from_cfg(cfg)
        with pytest.raises(NonFiniteLossError) if raised else nullcontext():
            runner.train()
        opened = [os.path.realpath(file) for file in Path('/proc/self/fd').iterdir()]
        assert not [file for file in opened if file.startswith(runner.work_dir)]
        runner.logger.info('one more line')
        text = next(Path(runner.log_dir).glob('*.log')).read_text()
        assert 'one more line' in text
        assert 'Effective batch' in text
        assert text.count('An epoch: 64 images, 8 batches') == 1
