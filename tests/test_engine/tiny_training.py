"""A data set and a model that train in milliseconds, with everything random that a real run has."""

import os
import signal
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn
from torch.distributed.distributed_c10d import _get_default_store

from mmkernel.registry import DATASETS, HOOKS, MODELS


@DATASETS.register_module()
class TinyViews(torch.utils.data.Dataset):
    """Two noisy views of fixed patterns; the noise depends on (seed, epoch, index)."""

    def __init__(self, length=64, seed=0):
        self.length, self.seed = length, seed

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        epoch, index = key if isinstance(key, tuple) else (0, key)  # samplers of mmengine give no epoch
        pattern = np.random.default_rng(index).normal(size=(1, 8, 8))
        noise = np.random.default_rng((self.seed, epoch, index)).normal(size=(2, 1, 8, 8))
        views = [torch.from_numpy(pattern + 0.1 * n).float() for n in noise]
        return dict(inputs=views, sample_index=index, label=-1)


@MODELS.register_module()
class TinyModel(BaseModel):
    """Convolution, batch norm, dropout; ``bad_iteration`` makes the loss NaN there; counts its commits."""

    def __init__(self, width=8, bad_iteration=-1, norm=True, data_preprocessor=None, raises=None):
        super().__init__(data_preprocessor)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.Flatten()]
        self.backbone = nn.Sequential(*layers, nn.Dropout(0.1 if norm else 0.0))
        self.neck = nn.Linear(144, width)
        self.neck.out_dim = width
        self.register_buffer('commits', torch.zeros((), dtype=torch.long))
        self.calls, self.bad_iteration, self.raises = 0, bad_iteration, raises

    def forward(self, inputs, sample_index, label=None, mode='loss'):
        a, b = (self.neck(self.backbone(view)) for view in inputs)
        loss = (a - b).square().mean() + (a.square() - 1).square().mean()  # a mean over rows: no coupling of ranks
        self.calls += 1
        if self.calls == self.bad_iteration:
            loss = self.fail(a) if self.raises else loss * float('nan')
        return dict(loss_total=loss, spread=a.detach().std())

    def fail(self, z):
        """End as a decomposition, or a check, does that meets NaN before there is a loss; 'finite': for another reason."""
        z = z if self.raises == 'finite' else z * float('nan')
        return whitened(z) if self.raises == 'decomposition' else checked(z)

    def commit(self, real=None):
        self.commits += 1 if real is None else real


def whitened(z):
    return torch.linalg.eigh(z.T @ z).eigenvalues.sum()


def checked(z):
    raise ValueError('The head refuses its rows.')


@HOOKS.register_module()
class SpoilWeights(Hook):
    """Make a number NaN after the last iteration, as an overflowing step does: of a weight, a buffer, the optimizer, an average."""

    def __init__(self, where='weight'):
        self.where = where

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx != 7:
            return
        bias = runner.model.neck.bias
        spoilt = dict(
            weight=bias.data,
            buffer=runner.model.backbone[1].running_var,
            optimizer=runner.optim_wrapper.optimizer.state[bias]['momentum_buffer'],
        )
        if self.where in spoilt:
            spoilt[self.where][0] = float('nan')

    def before_save_checkpoint(self, runner, checkpoint):
        if self.where == 'average':  # as mmengine's EMAHook adds it
            checkpoint['ema_state_dict'] = {'neck.bias': torch.tensor([1.0, float('inf')])}


@HOOKS.register_module()
class DiesOnce(Hook):
    """Process 1 gets ``number`` in step ``step`` unless ``file`` is there; process 0 waits for ever, as in a collective of NCCL."""

    def __init__(self, file, step=5, number=signal.SIGKILL):
        self.file, self.step, self.number = Path(file), step, number

    def before_train(self, runner):
        self.due = not self.file.exists()

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.due and runner.iter == self.step:
            if runner.rank:
                self.file.touch()
                os.kill(os.getpid(), self.number)
            _get_default_store().get('never')
