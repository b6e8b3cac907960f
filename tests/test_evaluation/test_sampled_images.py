import numpy as np
import pytest
import torch
from torch import nn

from mmkernel.engine import load_config
from mmkernel.evaluation import load_cloud, sample_cloud, save_cloud, untrained_encoder
from mmkernel.evaluation.sampled_images import FeatureMismatchError

SMALL = {'model.backbone.channels': (4, 4, 4, 4), 'model.neck.dims': (8, 8)}


@pytest.fixture(scope='module')
def small(repository):
    cfg = load_config(repository / 'configs/sfrik/digits_L3.py', SMALL)
    return untrained_encoder(cfg), cfg


def test_images_are_spread_over_the_source_and_views_are_those_of_training(small):
    model, cfg = small
    cloud = sample_cloud(model, cfg, images=30)
    assert cloud.index.tolist()[:2] == [0, 12]
    assert cloud.index[-1] == 359
    assert cloud.h.shape == (30, 4)
    assert cloud.z.shape == cloud.views[0].shape == cloud.views[1].shape == (30, 8)
    assert not torch.equal(cloud.views[0], cloud.views[1])
    again = sample_cloud(model, cfg, images=30)
    assert torch.equal(cloud.z, again.z)
    assert torch.equal(cloud.views[1], again.views[1])
    assert sample_cloud(model, cfg, images=10**6).z.shape[0] == 360


def test_without_an_evaluation_part_views_of_training_images_serve(small):
    model, cfg = small
    bare = {key: cfg[key] for key in cfg if key != 'evaluation'}
    bare = type(cfg)(bare)
    cloud = sample_cloud(model, bare, images=20)
    assert int(cloud.index[-1]) == 1436
    assert torch.equal(cloud.z, cloud.views[0])


def test_patches_have_no_second_view(repository):
    cfg = load_config(repository / 'configs/cpc/digits_v1.py', {'model.backbone.channels': (4, 4, 4, 4)})
    assert sample_cloud(untrained_encoder(cfg), cfg, images=10).views is None


def test_kept_embeddings_come_back_for_their_own_weights_only(small, tmp_path):
    model, cfg = small
    cloud = sample_cloud(model, cfg, images=12)
    path = save_cloud(cloud, tmp_path / 'kept' / 'cloud.npz')
    back = load_cloud(path, model)
    for name in ('h', 'z', 'labels', 'index'):
        assert torch.equal(getattr(back, name), getattr(cloud, name))
    assert torch.equal(back.views[1], cloud.views[1])
    with pytest.raises(FeatureMismatchError, match='come from other weights'):
        load_cloud(path, untrained_encoder(cfg, seed=1))
    np.savez(tmp_path / 'other.npz', a=1)
    with pytest.raises(ValueError, match='is not a saved cloud of embeddings: it lacks .encoder.'):
        load_cloud(tmp_path / 'other.npz', model)


def test_a_model_without_embeddings(small):
    with pytest.raises(ValueError, match='Linear has no embeddings'):
        sample_cloud(nn.Linear(2, 2), small[1])


def test_a_data_set_without_a_source_is_named(small):
    model, cfg = small
    bare = cfg.copy()
    bare.evaluation, bare.train_dataloader = None, dict(dataset=dict(type='MyViews'))
    with pytest.raises(
        ValueError, match='MyViews has no source, whose images could be looked at: give evaluation.test'
    ):
        sample_cloud(model, bare)


def test_an_untrained_encoder_leaves_the_random_state_of_every_device_alone(small, monkeypatch):
    _, cfg = small
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)  # without a driver: reading their state would raise
    monkeypatch.setattr(torch.cuda, 'manual_seed_all', lambda seed: pytest.fail('a GPU was seeded'))
    before = torch.get_rng_state()
    one, other = (dict(untrained_encoder(cfg, seed=3).state_dict()) for _ in range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert torch.equal(before, torch.get_rng_state())
