"""Before a run: a few images are tried, and the log says how many images and batches an epoch has."""

import numpy as np
import pytest
import torch

from mmkernel.datasets import Source
from mmkernel.engine import ConfigError, Runner, load_config
from mmkernel.models.feature_extractor import image_channels
from mmkernel.registry import DATASETS


@DATASETS.register_module()
class Floats(Source):
    """Forty float images of one channel, as a user's own class may give them."""

    def __init__(self):
        super().__init__()
        self.labels = np.arange(40) % 4

    def read(self, i):
        return np.zeros((16, 16, 1), np.float32)


def runner(repository, folder, **options):
    small = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (16, 16), 'train_cfg.max_epochs': 1,
             'param_scheduler.warmup_epochs': 0, 'train_dataloader.batch_size': 500}  # fmt: skip
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', small | options)
    cfg.work_dir = str(folder)
    return Runner.from_cfg(cfg)


def test_the_log_says_how_many(repository, tmp_path):
    run = runner(repository, tmp_path)
    run.train()
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    assert 'An epoch: 1,437 images, 2 batches of 500 x 1 process(es), which leave out 437 images' in text
    assert '5 images tried: 16 x 16 px, 1 channel(s).' in text
    assert 'evaluation.train: 1,437 images, 3 batches of 512.' in text
    assert 'evaluation.test: 360 images, 1 batches of 512.' in text


def test_float_images_end_a_run_before_it_begins(repository, tmp_path):
    source = {'_delete_': True, 'type': 'Floats'}
    options = {'train_dataloader.dataset.source': source, 'train_dataloader.batch_size': 20}
    for workers in (0, 2):
        run = runner(repository, tmp_path / str(workers), **options, **{'train_dataloader.num_workers': workers})
        with pytest.raises(
            ConfigError, match=r'train_dataloader: Floats\.read\(0\), record 0, gave float32.*255 \* image'
        ):
            run.train()
        assert run.iter == 0
    run = runner(repository, tmp_path / 'test', **{'evaluation.test': source})
    with pytest.raises(ConfigError, match=r'evaluation\.test: Floats\.read\(0\)'):
        run.train()
    assert run.iter == 0


def test_a_transformer_that_takes_one_size(repository, tmp_path):
    beit = dict(
        _delete_=True, type='TIMMBackbone', model_name='beit_base_patch16_224', patch_size=4, depth=1, embed_dim=32,
        num_heads=2, in_channels=1, img_size=16,
    )  # fmt: skip
    parts = {
        'train_dataloader': 'train_dataloader.dataset.views.both.size',
        'evaluation.train': 'evaluation.transform.crop',
    }
    for where, key in parts.items():
        run = runner(repository, tmp_path / where, **{'model.backbone': beit, key: 8, 'model.backbone.channels': None})
        with pytest.raises(ConfigError, match=f'{where}: .* 8 x 8 px: this network takes images of one size alone'):
            run.train()
        assert run.iter == 0


def test_a_model_for_another_number_of_channels(repository, tmp_path):
    run = runner(repository, tmp_path, **{'data_preprocessor.mean': [0.5] * 3, 'data_preprocessor.std': [0.2] * 3,
                                          'model.backbone.in_channels': 3})  # fmt: skip
    with pytest.raises(ConfigError, match=r'Digits: digit \d+ .* has 1 channel\(s\); the model takes 3'):
        run.train()


def test_channels_of_a_model():
    model = torch.nn.Module()
    assert image_channels(model) is None
    model.backbone = torch.nn.Sequential(torch.nn.Conv2d(5, 2, 3), torch.nn.Conv2d(2, 2, 3))
    assert image_channels(model) == 5
    model.data_preprocessor = torch.nn.Module()
    model.data_preprocessor.mean = torch.zeros(1, 1, 1)  # serves any number
    assert image_channels(model) == 5
    model.data_preprocessor.mean = torch.zeros(4, 1, 1)
    assert image_channels(model) == 4


@pytest.mark.parametrize('channels', [7, 16])
def test_a_folder_of_arrays_with_many_channels_trains(repository, tmp_path, channels):
    generator = np.random.default_rng(0)
    (tmp_path / 'cubes').mkdir()
    for k in range(16):
        np.save(tmp_path / f'cubes/{k}.npy', generator.integers(0, 4096, (20, 24, channels)).astype(np.uint16))
    source = {
        '_delete_': True,
        'type': 'ImageFolder',
        'root': str(tmp_path / 'cubes'),
        'extensions': '.npy',
        'scale': 4095,
    }
    run = runner(repository, tmp_path / 'run', **{
        'train_dataloader.dataset.source': source, 'train_dataloader.batch_size': 8, 'default_hooks.knn': None,
        'model.backbone.in_channels': channels, 'data_preprocessor.mean': [0.5] * channels,
        'data_preprocessor.std': [0.3] * channels})  # fmt: skip
    run.train()
    assert run.iter == 2
