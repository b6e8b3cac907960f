import numpy as np
import pytest
import torch
from PIL import Image

from mmkernel.evaluation import mlp_probe, predict_transformations


def rings(count=400, seed=0):
    """Classes that no line divides: inside and outside of a circle; one column that never changes."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    labels = (points.norm(dim=1) > 1.2).long()
    return torch.cat([points, torch.full((count, 1), 7.0)], 1), labels


def test_what_no_line_divides_and_the_commonest_answer():
    (train_x, train_y), (test_x, test_y) = rings(), rings(100, 1)
    result = mlp_probe(train_x, train_y, test_x, test_y, hidden=64, epochs=40, batch_size=32, lr=1e-2)
    assert result['top1'] > 90
    assert result['majority'] == pytest.approx(100 * float((test_y == train_y.mode().values).double().mean()))
    assert result['top1'] > result['majority'] + 20


@pytest.mark.parametrize(
    'kinds', [(torch.float64, torch.float64), (torch.float32, torch.float64), (torch.float16, torch.float32)]
)
def test_features_of_any_precision(kinds):
    (train_x, train_y), (test_x, test_y) = rings(100), rings(40, 1)
    found = mlp_probe(
        train_x.to(kinds[0]), train_y, test_x.to(kinds[1]), test_y, hidden=64, epochs=40, batch_size=32, lr=1e-2
    )
    assert found['top1'] > 85


def test_features_without_information_score_like_the_commonest_answer():
    (train_x, train_y), (test_x, test_y) = rings(), rings(100, 1)
    result = mlp_probe(torch.ones_like(train_x), train_y, torch.ones_like(test_x), test_y, hidden=8, epochs=30)
    assert result['top1'] == result['majority']


def test_depends_on_its_seed_alone():
    data = (*rings(), *rings(50, 1))
    options = dict(hidden=8, epochs=2)
    torch.manual_seed(0)
    first = mlp_probe(*data, **options)
    state = torch.get_rng_state()
    assert mlp_probe(*data, **options) == first
    assert torch.equal(torch.get_rng_state(), state)


class Colourful(torch.nn.Module):
    """h knows how far the channels are apart; the neck has forgotten it."""

    def extract(self, images, stage='backbone'):
        spread = images.float().std(1).mean((1, 2))[:, None]
        return torch.cat([spread, spread**2], 1) if stage == 'backbone' else torch.ones(len(images), 2)


def test_table_of_what_h_knows_and_g_has_forgotten(tmp_path):
    for k in range(80):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{k:02d}.png')
    source = dict(type='ImageFolder', root=str(tmp_path))
    cfg = dict(
        evaluation=dict(
            train=source, test=source, transform=dict(type='CenterView', resize=None, crop=6), num_workers=0
        ),
        data_preprocessor=dict(mean=[0.5] * 3),
    )
    (row,) = predict_transformations(cfg, {'ours': Colourful()}, ('grey', 'rotation'), hidden=16, epochs=30, lr=1e-2)
    assert row['name'] == 'ours'
    grey = row['scores']['grey']
    assert grey['h']['top1'] == 100
    assert grey['g(h)']['top1'] == grey['g(h)']['majority'] < 95
    assert set(row['scores']['rotation']) == {'h', 'g(h)'}
    one_channel = cfg | dict(data_preprocessor=dict(mean=[0.5]))
    assert predict_transformations(one_channel, {'ours': Colourful()}, ('grey',)) == [dict(name='ours', scores={})]
