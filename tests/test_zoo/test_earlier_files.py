"""Files written by earlier versions load as they did: a published encoder, and a checkpoint of a run with its config inside."""

import pytest
import torch

from mmkernel.cli import main
from mmkernel.engine import load_checkpoint, load_config
from mmkernel.evaluation import untrained_encoder
from mmkernel.zoo import get_features, load, load_file

SMALL = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (8, 8)}


@pytest.fixture
def folder(repository):
    return repository / 'tests/golden/zoo'


@pytest.fixture
def features(golden):
    """kind -> (images, features) as the version that wrote the file computed them."""
    found = golden('zoo/features')
    return lambda kind: [torch.from_numpy(found[f'{kind}_{what}']) for what in ('images', 'features')]


def test_a_published_encoder(folder, features):
    images, want = features('published')
    encoder = load(folder / 'encoder.safetensors')
    torch.testing.assert_close(get_features(encoder, images), want)
    assert encoder.info.name == 'tiny'


def test_a_checkpoint_of_a_run(folder, features, repository, tmp_path):
    images, want = features('run')
    model = untrained_encoder(load_config(repository / 'configs/sfrik/digits_L3.py', SMALL))
    assert load_checkpoint(model, folder / 'epoch_1.pth').exact
    torch.testing.assert_close(get_features(model, images), want)
    other = untrained_encoder(load_config(repository / 'configs/sfrik/digits_L3.py', SMALL), seed=1)
    load_file(other.backbone, folder / 'epoch_1.pth')
    torch.testing.assert_close(get_features(other, images), want)
    main(['export', str(folder / 'epoch_1.pth'), '--to', 'safetensors', '--out', str(tmp_path / 'a.safetensors')])
    torch.testing.assert_close(get_features(load(tmp_path / 'a.safetensors'), images), want)
