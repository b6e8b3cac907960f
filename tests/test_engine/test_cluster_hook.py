"""Clustering through the Runner: labels before the first step, exact resume, balanced sampling, and its errors."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from multiprocess import run_processes

from mmkernel.engine import ClusterHook, load_checkpoint, load_config, train
from mmkernel.engine.cluster_hook import whitened_kmeans
from mmkernel.models import build_model
from mmkernel.registry import DATASETS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs/deepcluster'
V1, V2 = CONFIGS / 'digits_v1.py', CONFIGS / 'digits_v2.py'


def config(path, folder, clusters=(12,), **options):
    small = {
        'model.backbone.channels': (4, 4, 4, 8),
        'model.head.num_clusters': clusters,
        'train_dataloader.batch_size': 64,
        'train_dataloader.num_batch_per_epoch': 3,
        'train_cfg.max_epochs': 3,
        'param_scheduler.warmup_epochs': 0,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.checkpoint.max_keep': 3,
        'default_hooks.cluster.interval': 1,
        'log_level': 'ERROR',
        **({'default_hooks.cluster.pca_dim': 6} if path == V1 else {'model.neck.dims': (8, 8)}),
    }
    cfg = load_config(path, {**small, **options})
    cfg.work_dir = str(folder)
    return cfg


@pytest.mark.parametrize('path, clusters', [(V2, (12, 9)), (V1, (12,))], ids=['memory', 'features'])
def test_two_epochs_and_one_resumed_equal_three(tmp_path, path, clusters):
    straight = train(config(path, tmp_path / 'a', clusters)).model
    (tmp_path / 'a/epoch_3.pth').unlink()
    resumed = train(config(path, tmp_path / 'a', clusters), resume=True).model
    for key, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    labels = straight.head.pseudo.labels
    assert labels.shape == (len(clusters), 1437)
    assert int((labels[0] >= 0).sum()) == (3 * 64 if path == V2 else 1437)  # v1 looks at all images, v2 at those seen
    evaluated = build_model(config(path, tmp_path, clusters))  # knows nothing of the number of images
    assert load_checkpoint(evaluated, tmp_path / 'a/epoch_3.pth').exact


def labels_of_features(rank, world_size):
    cfg = config(V1, 'unused')
    torch.manual_seed(0)
    model = build_model(cfg)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)  # 1437 images: not a multiple of two
    model.head.prepare(len(dataset))
    hook = ClusterHook(features='backbone', pca_dim=6)
    loader, wrapper = SimpleNamespace(dataset=dataset), SimpleNamespace(optimizer=SimpleNamespace(state={}))
    runner = SimpleNamespace(model=model, cfg=cfg, train_dataloader=loader, optim_wrapper=wrapper)
    hook._cluster_features(runner, torch.Generator().manual_seed(1))
    return model.head.pseudo.labels


def test_processes_share_the_images_and_get_the_labels_of_one():
    (alone,), shared = run_processes(labels_of_features, 1), run_processes(labels_of_features, 2)
    assert alone.shape == (1, 1437)
    assert torch.equal(shared[0], shared[1])
    assert (shared[0] == alone).float().mean() > 0.99  # features of other batches differ by rounding


def test_a_new_classifier_has_no_optimizer_state(tmp_path):
    runner = train(config(V1, tmp_path, **{'train_cfg.max_epochs': 1}))
    state = runner.optim_wrapper.optimizer.state
    assert all('momentum_buffer' in state[p] for p in runner.model.backbone.parameters())
    assert not any(p in state for p in runner.model.head.classifiers.parameters())
    assert not runner.model.head.classifiers[0].bias.any()
    labels = runner.model.head.pseudo.labels[0].numpy()
    assert np.array_equal(runner.train_dataloader.sampler.labels, labels)


def test_more_clusters_than_images(tmp_path):
    with pytest.raises(ValueError, match='2000 clusters of 1437 samples'):
        train(config(V2, tmp_path, (2000,)))


def test_a_head_without_its_hook(tmp_path):
    cfg = config(V2, tmp_path)
    del cfg.default_hooks['cluster']
    with pytest.raises(ValueError, match='no hook makes clusters'):
        train(cfg)


def test_a_hook_for_the_other_kind_of_head(tmp_path):
    with pytest.raises(ValueError, match="features='neck' and ClusterHead with classifier='centroids'"):
        train(config(V2, tmp_path, **{'default_hooks.cluster.features': 'neck'}))


@pytest.mark.parametrize('option', [dict(features='all'), dict(iterations=0), dict(interval=0)])
def test_bad_arguments(tmp_path, option):
    with pytest.raises(ValueError, match='ClusterHook'):
        train(config(V2, tmp_path, **{f'default_hooks.cluster.{k}': v for k, v in option.items()}))


def test_whitened_kmeans_finds_blobs_in_any_scale():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6)) * 8
    truth = np.arange(200) % 4
    scale = np.array([1, 1, 1, 1, 100, 0.01])
    features = (centres[truth] + rng.normal(size=(200, 6))) * scale
    labels = whitened_kmeans(features, 4, 4, 20, seed=1)
    assert np.array_equal(labels, whitened_kmeans(features, 4, 4, 20, seed=1))
    assert all(len(set(labels[truth == k])) == 1 for k in range(4))
    with pytest.raises(ValueError, match='201 clusters of 200 samples'):
        whitened_kmeans(features, 201, None, 20, seed=1)
    with pytest.raises(ValueError, match='pca_dim = 7 components of 200 features of width 6'):
        whitened_kmeans(features, 4, 7, 20, seed=1)
