"""Parts of a small model that go wrong on one image, in one step, or in the backward pass alone."""

import torch
from mmengine.hooks import Hook
from tiny_training import TinyViews
from torch import nn

from mmkernel.distributed import gather_rows_with_gradient
from mmkernel.engine.hooks import unwrap
from mmkernel.models import Head
from mmkernel.models.heads.info_nce import InfoNCEHead
from mmkernel.registry import DATASETS, HOOKS, MODELS

SICK, NAN = 47, float('nan')  # the image


@DATASETS.register_module(force=True)
class MarkedViews(TinyViews):
    """The pixel at (0, 0) of image 47 is 1000; ``value`` takes its place in view 1."""

    def __init__(self, length=64, seed=0, value=None):
        super().__init__(length, seed)
        self.value = value

    def __getitem__(self, key):
        item = super().__getitem__(key)
        if item['sample_index'] == SICK:
            for view in item['inputs']:
                view[0, 0, 0] = 1000.0
            if self.value is not None:
                item['inputs'][1][0, 0, 0] = self.value
        return item


class Part(nn.Module):
    """The identity, but for the rows that hold the mark: 'output': NaN; 'gradient': NaN in the backward pass alone."""

    def __init__(self, how):
        super().__init__()
        self.how, self.zero = how, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        marked = (x.flatten(1).amax(1) > 500).view(-1, 1, 1, 1)
        if self.how == 'output':
            return torch.where(marked, NAN, x) + 0 * self.zero
        one = (1 + self.zero - marked.any().float()).sqrt() if self.how == 'gradient' else self.zero
        return x + 0 * one


@MODELS.register_module(force=True)
class SickEncoder(nn.Module):
    """Views (B, 1, 8, 8) -> (B, 16), with batch statistics and dropout."""

    def __init__(self, how=None):
        super().__init__()
        self.out_dim = 16
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Flatten()]
        self.norm, self.sick, self.layers = nn.InstanceNorm2d(1), Part(how), nn.Sequential(*layers, nn.Linear(144, 16))

    def forward(self, x):
        return self.layers(self.norm(self.sick(x)))


def decomposed(x):
    return torch.linalg.eigh(x.T @ x).eigenvalues.sum()


class SickRows(Head):
    """NaN in the term of image 47 (``how='output'``), the distance of its row to itself ('gradient'), or an error of LAPACK."""

    how = None

    def spoilt(self, parts, embeddings):
        sick = (embeddings.sample_index == SICK)[:, None]
        z = embeddings.predicted[0]
        if self.how == 'output':
            return parts | {'loss_sick': torch.where(sick, NAN, z).mean()}
        if self.how == 'error':
            return parts | {'loss_sick': decomposed(gather_rows_with_gradient(torch.where(sick, NAN, z)))}
        if self.how == 'gradient':
            return parts | {'loss_sick': torch.where(sick, (z - z).square(), z.square() + 1).sum(1).sqrt().mean()}
        return parts


@MODELS.register_module(force=True)
class SickMean(SickRows):
    def __init__(self, how=None):
        super().__init__()
        self.how = how

    def loss(self, embeddings):
        distance = (embeddings.predicted[0] - embeddings.target[1]).square().mean()
        return self.spoilt({'loss_distance': distance}, embeddings)


@MODELS.register_module(force=True)
class SickQueue(InfoNCEHead, SickRows):
    def __init__(self, how=None, in_dim=None, **settings):
        super().__init__(in_dim=in_dim, **settings)
        self.how = how

    def loss(self, embeddings):
        return self.spoilt(super().loss(embeddings), embeddings)


@HOOKS.register_module(force=True)
class Provoke(Hook):
    """The loss of iteration ``step`` becomes NaN after it has been noted: in ``seen``, as it is logged."""

    seen = {}

    def __init__(self, step):
        self.step = step

    def before_train(self, runner):
        model = unwrap(runner.model)
        parse = model.parse_losses

        def spoilt(losses):
            loss, logged = parse(losses)
            if runner.iter == self.step:
                self.seen.update({name: value.item() for name, value in logged.items()})
            return loss * (NAN if runner.iter == self.step else 1.0), logged

        model.parse_losses = spoilt


@HOOKS.register_module(force=True)
class SpoilWeight(Hook):
    """A weight of the neck becomes NaN after iteration 2."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            unwrap(runner.model).neck[0].weight.data[1, 2] = NAN
