"""Every config that is too large for a test takes two optimizer steps on noise with everything made narrow."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmkernel.datasets.sources import Source
from mmkernel.engine import load_config, train
from mmkernel.registry import DATASETS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(path for path in ROOT.glob('configs/[!_]*/*.py') if 'digits' not in path.stem)
BATCH, WIDTH = 16, 8


@DATASETS.register_module()
class NoiseImages(Source):
    """Two batches of 72 x 96 colour noise, each image another grey; labels only where ``classes`` says how many.

    several: the images have no label, but targets, each two classes.
    """

    def __init__(self, classes: int = 0, several: bool = False) -> None:
        super().__init__()
        if several:
            index = np.arange(2 * BATCH)[:, None] + np.arange(classes)
            self.targets, self.classes = (index % classes < 2).astype(np.int8), [f'{k}' for k in range(classes)]
            self.labels = np.full(2 * BATCH, -1)
            return
        self.labels = np.arange(2 * BATCH) % classes if classes else np.full(2 * BATCH, -1)
        self.classes = [f'{k}' for k in range(classes)]

    def read(self, i: int) -> np.ndarray:
        noise = np.random.default_rng(i).integers(0, 128, (72, 96, 3))
        return (noise + 4 * i).astype(np.uint8)

    def name(self, i: int) -> str:
        return f'noise {i}'


NARROW = {
    'dims': lambda dims: (WIDTH,) * len(dims),
    'num_prototypes': lambda _: 6,
    'num_clusters': lambda heads: (4,) * len(heads),
    'length': lambda _: 2 * BATCH,
    'queue_length': lambda length: length and 2 * BATCH,
    'sub_batch_size': lambda size: size and BATCH,
    'groups': lambda groups: groups and 2,
    'pca_dim': lambda dim: dim and 4,
    'hidden': lambda _: WIDTH,
    'hidden_dim': lambda _: WIDTH,
    'num_classes': lambda _: 4,
}


def narrow(node):
    """The same composition with small widths, everywhere below ``node``."""
    if isinstance(node, dict):
        if node.get('type') == 'TIMMBackbone':
            of_vit = dict(embed_dim=24, num_heads=2, depth=1)
            of_resnet = dict(model_name='resnet18', channels=(8, 8, 8, 8), layers=(1, 1, 1, 1))
            node.update(of_vit if node['model_name'].startswith('vit') else of_resnet)
        for key, value in node.items():
            node[key] = NARROW[key](value) if key in NARROW and value is not None else narrow(value)
    elif isinstance(node, (list, tuple)):
        return type(node)(narrow(item) for item in node)
    return node


def shrink(cfg):
    """A third of the side of random crops, where a network takes any size: nine times less to convolve."""
    if cfg.model.backbone.get('model_name', '').startswith('resnet'):
        for view in cfg.train_dataloader.dataset.get('views', {}).values():
            if view and view.get('size', 0) >= 96 and view.get('crop', {}).get('type') == 'RandomResizedCrop':
                view.size //= 3


@pytest.mark.slow
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_two_steps(path, tmp_path):
    cfg = load_config(path)
    narrow(cfg.model)
    narrow(cfg.default_hooks)
    shrink(cfg)
    cfg.work_dir = str(tmp_path)
    cfg.train_dataloader.update(batch_size=BATCH, num_workers=0)
    cfg.train_dataloader.pop('num_batch_per_epoch', None)
    cfg.train_dataloader.dataset.source = dict(type='NoiseImages')
    labelled = dict(type='NoiseImages', classes=4, several='objective' in cfg.model)
    if cfg.model.type == 'Classifier':
        cfg.train_dataloader.dataset.source = labelled
    if cfg.model.type == 'Classifier' or 'knn' in cfg.default_hooks:
        cfg.evaluation.train = cfg.evaluation.test = labelled
        cfg.evaluation.update(num_workers=0, transform=dict(type='CenterView', resize=64, crop=64))
    if 'knn' in cfg.default_hooks:
        cfg.default_hooks.knn.interval = 1
    cfg.train_cfg.max_epochs = 1
    cfg.optim_wrapper.update(precision='float32', accumulative_counts=1)
    if 'warmup_epochs' in cfg.param_scheduler:
        cfg.param_scheduler.warmup_epochs = 0
    runner = train(cfg)
    assert runner.iter == 2
    assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert ('monitor/knn/top1' in runner.message_hub.log_scalars) == ('knn' in cfg.default_hooks)
