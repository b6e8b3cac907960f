"""The contract views -> Embeddings -> head, the batching policy, and the one door to features."""

import pytest
import torch
from launches import Launches
from torch import nn

from mmkernel.losses.alignment import compared_pairs, pairs_of_views
from mmkernel.models import Embeddings, Head, JointEmbedding, OnlineTarget, build_model
from mmkernel.models.embeddings import encode, group_views, project
from mmkernel.registry import MODELS

BACKBONE = dict(
    type='TIMMBackbone',
    model_name='resnet18',
    small_images=True,
    in_channels=1,
    layers=(1, 1, 1, 1),
    channels=(4, 4, 8, 8),
)
NECK = dict(type='MLPNeck', dims=(16, 12))
HEAD = dict(type='KernelMMDHead', kernel=dict(type='LegendreKernel', weights=(1.0, 40.0)))
PREPROCESSOR = dict(type='ViewPreprocessor', mean=[0.5], std=[0.25])


def model(**options):
    torch.manual_seed(0)
    parts = dict(backbone=dict(BACKBONE), neck=dict(NECK), head=dict(HEAD), data_preprocessor=dict(PREPROCESSOR))
    return MODELS.build(dict(type='JointEmbedding', **{**parts, **options}))


def images(*sizes, batch=6):
    return [torch.randn(batch, 1, s, s, generator=torch.Generator().manual_seed(i)) for i, s in enumerate(sizes)]


def uint8_batch(views=2, batch=6, size=16):
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(0, 256, (batch, 1, size, size), dtype=torch.uint8, generator=generator) for _ in range(views)
    ]
    return dict(inputs=inputs, sample_index=torch.arange(batch), label=torch.zeros(batch, dtype=torch.long))


def test_from_uint8_to_gradients_of_every_parameter():
    m = model(predictor=dict(type='MLPNeck', dims=(8, 12)))
    parts = m(**m.data_preprocessor(uint8_batch(), True), mode='loss')
    assert {'loss_alignment', 'loss_kernel', 'alignment', 'kernel'} <= parts.keys()
    sum(v for k, v in parts.items() if k.startswith('loss_')).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in m.parameters())


def test_widths_are_filled_in_downstream():
    m = model(predictor=dict(type='MLPNeck', dims=(5, 12)))
    assert m.backbone.out_dim == 8
    assert (m.neck[0].in_features, m.neck.out_dim) == (8, 12)
    assert m.predictor[0].in_features == 12


@pytest.mark.parametrize(
    'online, target, expected',
    [
        (range(2), range(2), [(1, 0), (0, 1)]),
        (range(4), (0, 1), [(1, 0), (2, 0), (3, 0), (0, 1), (2, 1), (3, 1)]),
        (range(4), (0,), [(1, 0), (2, 0), (3, 0)]),
        ((0,), (1,), [(0, 0)]),
    ],
)
def test_pairs_are_all_whose_source_views_differ(online, target, expected):
    assert pairs_of_views(tuple(online), tuple(target)) == expected


def test_multi_crop_embeddings():
    m = model(target_views=(0, 1), batching='size', neck_batching='all')
    embeddings = m.embeddings(images(16, 16, 8, 8, 8))
    assert embeddings.online.shape == (5, 6, 12)
    assert torch.equal(embeddings.target, embeddings.online[:2])
    assert len(embeddings.pairs) == 8
    assert compared_pairs(embeddings.predicted, embeddings.target, embeddings.pairs) == embeddings.pairs


def test_two_views_are_aligned_once():
    embeddings = model().embeddings(images(16, 16))
    assert embeddings.target is embeddings.online
    assert compared_pairs(embeddings.predicted, embeddings.target, embeddings.pairs) == [(0, 1)]


def test_pairs_are_kept_once_only_where_all_come_both_ways():
    z = torch.randn(3, 4, 2)
    assert compared_pairs(z, z) == [(0, 1), (0, 2), (1, 2)]
    assert compared_pairs(z, z, ordered=True) == pairs_of_views(range(3), range(3))
    assert compared_pairs(z, z.clone()) == pairs_of_views(range(3), range(3))
    for pairs in ([(0, 1)], [(1, 0)], [(0, 1), (1, 0), (0, 2)], [(0, 1), (1, 0), (2, 2)], [(0, 1), (0, 1), (1, 0)]):
        assert compared_pairs(z, z, pairs) == pairs


@pytest.mark.parametrize('batching, groups', [('view', [[0], [1], [2]]), ('size', [[0, 2], [1]]), ('all', [[0, 1, 2]])])
def test_groups(batching, groups):
    assert group_views(images(16, 8, 16), batching) == groups


def test_batching_decides_which_views_share_batch_statistics():
    x, y = images(16, 16)
    y = 3 * y + 1
    apart = model().embeddings([x, y])
    together = model(batching='all').embeddings([x, y])
    alone = model().embeddings([x, x])
    torch.testing.assert_close(apart.online[0], alone.online[0])
    assert not torch.allclose(apart.online[0], together.online[0], atol=1e-3)


def test_all_sizes_in_one_pass_is_refused():
    with pytest.raises(ValueError, match='views of one size'):
        model(batching='all').embeddings(images(16, 8))


@pytest.mark.parametrize('word', ['batching', 'neck_batching'])
def test_unknown_batching(word):
    with pytest.raises(ValueError, match="'view', 'size', 'all'"):
        model(**{word: 'crop'})


def test_target_view_outside_the_online_views():
    with pytest.raises(ValueError, match='Add it to online_views'):
        model(online_views=(0,), target_views=(1,)).embeddings(images(16, 16))


def test_view_index_beyond_the_batch():
    with pytest.raises(ValueError, match='a batch has 2 views'):
        model(target_views=(2,)).embeddings(images(16, 16))


def test_extract_is_eval_mode_without_traces():
    m = model().train()
    m.backbone.bn1.eval()  # a part frozen on purpose stays so
    before = {k: v.clone() for k, v in m.state_dict().items()}
    batch = uint8_batch()['inputs'][0]
    h, z = m.extract(batch), m.extract(batch, stage='neck')
    assert h.shape == (6, 8)
    assert z.shape == (6, 12)
    assert not h.requires_grad
    assert m.training
    assert m.backbone.layer1.training
    assert not m.backbone.bn1.training
    assert all(torch.equal(before[k], v) for k, v in m.state_dict().items())
    torch.testing.assert_close(h[:2], m.extract(batch[:2]))
    torch.testing.assert_close(h, m.extract((batch.float() / 255 - 0.5) / 0.25), rtol=1e-4, atol=1e-5)


def test_extract_of_an_unknown_stage():
    with pytest.raises(ValueError, match="'backbone' or 'neck'"):
        model().extract(images(16)[0], stage='head')


def test_heads_run_in_float32_under_autocast():
    seen = {}

    class Spy(Head):
        def loss(self, embeddings: Embeddings):
            seen['dtype'] = embeddings.online.dtype
            seen['autocast'] = torch.is_autocast_enabled('cpu')
            return {'loss_spy': embeddings.online.sum()}

    m = model(head=Spy())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        m(images(16, 16))
    assert seen == {'dtype': torch.float32, 'autocast': False}


def test_commit_reaches_the_head():
    class Counter(Head):
        def __init__(self):
            super().__init__()
            self.register_buffer('steps', torch.zeros((), dtype=torch.long))

        def loss(self, embeddings):
            return {'loss_none': embeddings.online.sum() * 0}

        def commit(self, real=None):
            self.steps += 1

    m = model(head=Counter())
    m(images(16, 16))
    assert m.head.steps == 0
    m.commit()
    assert m.head.steps == 1


def test_build_model_takes_the_preprocessor_of_the_config():
    cfg = dict(
        model=dict(type='JointEmbedding', backbone=dict(BACKBONE), neck=dict(NECK), head=dict(HEAD)),
        data_preprocessor=dict(PREPROCESSOR),
    )
    assert build_model(cfg).data_preprocessor.std.item() == pytest.approx(0.25 * 255)
    assert 'data_preprocessor' not in cfg['model']


def test_parts_may_be_modules():
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    backbone.out_dim = 8
    m = JointEmbedding(backbone, neck=dict(NECK), head=dict(HEAD), target=OnlineTarget())
    assert m.embeddings(images(8, 8)).width == 12


def test_init_weights_leaves_the_parts_as_built():
    m = model()
    before = {k: v.clone() for k, v in m.state_dict().items()}
    m.init_weights()
    assert all(torch.equal(before[k], v) for k, v in m.state_dict().items())


@pytest.mark.parametrize('shapes', [((4, 3), (4, 5)), ((4, 3, 2),), ()])
def test_views_of_different_shape(shapes):
    with pytest.raises(ValueError, match='of one shape'):
        Embeddings.from_views(*(torch.zeros(s) for s in shapes))


def linear_parts():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Linear(8, 4)


@pytest.mark.parametrize(
    'batchings', [('view', 'view'), ('all', 'all'), ('view', 'all'), ('all', 'view'), ('size', 'size')]
)
def test_encoding_copies_no_more_than_it_must(batchings):
    """Of what is (V, B, q): one joining of the views where they went apart, nothing where they went together."""
    backbone, neck = linear_parts()
    views = [torch.randn(5, 1, 8, 8) for _ in range(3)]
    upstream = torch.randn(3, 5, 4)
    expected = torch.stack([neck(backbone(view)) for view in views])
    with Launches() as launches:
        z = encode(backbone, neck, views, *batchings)
        z.backward(upstream)
    torch.testing.assert_close(z, expected)
    copies = sum(launches.names[name] for name in ('cat', 'copy_', 'index_select', 'zero_'))
    images, join, split_in_backward = batchings[0] != 'view', 1, 1
    most = {('view', 'view'): join, ('all', 'all'): images, ('size', 'size'): images}
    assert copies <= most.get(batchings, join + images + split_in_backward), launches


def test_views_of_other_order_of_sizes_come_back_in_their_places():
    backbone, neck = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), nn.Linear(4, 3)
    views = images(16, 8, 16, 8)
    views = [v.float() for v in views]
    expected = torch.stack([neck(backbone(view)) for view in views])
    for batchings in (('size', 'size'), ('size', 'all'), ('view', 'size')):
        torch.testing.assert_close(encode(backbone, neck, views, *batchings), expected)


def test_views_of_different_batches_are_refused():
    with pytest.raises(ValueError, match=r'the views have \[3, 5\]'):
        encode(*linear_parts(), [torch.randn(3, 1, 8, 8), torch.randn(5, 1, 8, 8)], 'view', 'view')


def test_predictions_of_one_pass_read_the_embeddings_where_they_are():
    predictor, online, views = nn.Linear(4, 4), torch.randn(3, 5, 4, requires_grad=True), [torch.randn(5, 1, 8, 8)] * 3
    expected = predictor(online)
    for batching in ('view', 'all'):
        with Launches() as launches:
            p = project(predictor, online, views, batching)
        torch.testing.assert_close(p, expected)
        assert launches.names['cat'] == (batching == 'view')


@pytest.mark.parametrize('target_views, copies', [((0, 1), 0), ((2, 0), 1)])
def test_targets_among_more_online_views(target_views, copies):
    m = model(target_views=target_views, batching='all')
    with Launches() as launches:
        embeddings = m.embeddings(images(8, 8, 8))
    torch.testing.assert_close(embeddings.target, embeddings.online[list(target_views)])
    assert launches.names['index'] == 0
    assert launches.names['cat'] == 1 + copies  # of the images, in one pass
