"""Training on grids of patches through the Runner, resumed at the end of an epoch, and evaluated on whole images."""

from pathlib import Path

import pytest
import torch

from mmkernel.engine import load_config, train

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/cpc'


def config(folder, name):
    small = {
        'model.backbone.channels': (4, 4, 4, 8),
        'model.neck.dims': (8,),
        'model.head.context': dict(dim=8, blocks=2),
        'train_dataloader.batch_size': 32,
        'train_dataloader.num_batch_per_epoch': 2,
        'train_cfg.max_epochs': 2,
        'param_scheduler.warmup_epochs': 0,
        'default_hooks.checkpoint.interval': 1,
        'log_level': 'ERROR',
    }
    cfg = load_config(CONFIGS / name, small)
    cfg.work_dir = str(folder)
    return cfg


@pytest.mark.parametrize('name', ['digits_v1.py', 'digits_v2.py'])
def test_one_epoch_and_one_resumed_equal_two(tmp_path, name):
    straight = train(config(tmp_path, name)).model
    (tmp_path / 'epoch_2.pth').unlink()
    resumed = train(config(tmp_path, name), resume=True).model
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    assert straight.extract(images).shape == (3, 8)  # trained on 8 px
    normalisations = {type(m).__name__ for m in straight.modules() if 'Norm' in type(m).__name__}
    assert ('BatchNorm2d' in normalisations) == (name == 'digits_v1.py')
