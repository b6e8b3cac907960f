import pytest
import torch

from mmkernel.evaluation import linear_probe, transfer, weighted_knn

X = torch.eye(6)


@pytest.mark.parametrize('probe', [weighted_knn, linear_probe, transfer])
def test_a_class_absent_from_training_is_named_and_counts_as_wrong(probe):
    settings = {weighted_knn: dict(k=1), linear_probe: dict(epochs=1), transfer: dict(penalties=(1.0,))}[probe]
    train_y, test_y = torch.tensor([0, 0, 1, 1, 3, 3]), torch.tensor([0, 0, 1, 1, 7, 9])
    with pytest.warns(UserWarning, match=r'2 of 6 test images belong to classes without a training image \(7, 9\)'):
        found = probe(X, train_y, X, test_y, **settings)
    if probe is weighted_knn:
        assert found[1]['top1'] == pytest.approx(100 * 4 / 6)


def test_one_class_alone_is_no_test():
    with pytest.warns(UserWarning, match='all 6 training images have label 2: an accuracy says nothing'):
        weighted_knn(X, torch.full((6,), 2), X, torch.full((6,), 2), k=1)
