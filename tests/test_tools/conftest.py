"""A config small enough to be run by every door in tools/."""

import pytest

CONFIG = """
model = dict(
    type='JointEmbedding',
    backbone=dict(type='TIMMBackbone', model_name='resnet10t', in_channels=1),
    neck=dict(type='MLPNeck', dims=(16, 8)),
    head=dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 1.0))))
data_preprocessor = dict(type='ViewPreprocessor', mean=[0.3], std=[0.4])
evaluation = dict(
    train=dict(type='Digits', split='test', size=16), test=dict(type='Digits', split='test', size=16),
    transform=None, batch_size=360, num_workers=0)
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG)
    return path
