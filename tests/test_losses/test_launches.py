"""How many kernels the pairwise objectives launch, forward and backward, eager, with the block sizes of a GPU."""

from functools import partial

import pytest
import torch
from launches import Launches

from mmkernel.kernels import LegendreKernel, RBFKernel, kernel_energy
from mmkernel.losses import correlation_terms, moment_terms, nt_xent
from mmkernel.models import (
    CrossCorrelationHead,
    Embeddings,
    InfoNCEHead,
    KernelMMDHead,
    VarianceCovarianceHead,
)

LEGENDRE = {L: LegendreKernel((1.0, 40.0, 40.0)[:L]) for L in (1, 2, 3)}
PAIRS = [(0, 1)]


def launches(loss, n, q):
    """On no device at all: one that is not a CPU has the blocks of a GPU, and cannot be asked for a value."""
    z = torch.empty(2, n, q, device='meta', requires_grad=True)
    for _ in range(2):  # what depends on the sizes alone is made once
        z.grad = None
        with Launches() as counted:
            loss(z).backward()
    assert counted.host_reads == 0, counted
    return counted


def trained(head, z):
    views = (0, 1)
    index = torch.empty(z.shape[1], device=z.device)
    parts = head.loss(Embeddings(z, z, z, [(1, 0), (0, 1)], index, views, views))
    return sum(value for name, value in parts.items() if name.startswith('loss_'))


def sfrik(L):
    return KernelMMDHead(LEGENDRE[L], alignment_weight=40000.0, reduction='element')


HEADS = {
    'SFRIK L=3': (sfrik(3), 1024, 2048, 60),
    'SFRIK L=1': (sfrik(1), 1024, 2048, 50),
    'SFRIK L=2, q < N': (sfrik(2), 2048, 512, 65),
    'alignment and uniformity': (KernelMMDHead(RBFKernel(2.5), statistic='U', log=True), 1024, 2048, 60),
    'VICReg': (VarianceCovarianceHead(), 1024, 2048, 60),
    'VICReg, q < N': (VarianceCovarianceHead(), 2048, 512, 60),
    'Barlow Twins': (CrossCorrelationHead(), 1024, 2048, 50),
    'Barlow Twins, q < N': (CrossCorrelationHead(), 2048, 512, 50),
    'NT-Xent': (InfoNCEHead(), 1024, 2048, 50),
    'NT-Xent, 8192 rows': (InfoNCEHead(), 4096, 128, 120),
}


@pytest.mark.parametrize('name', HEADS)
def test_heads(name):
    head, n, q, limit = HEADS[name]
    counted = launches(partial(trained, head), n, q)
    assert 20 < counted.total <= limit, counted


FUNCTIONS = {
    'energy of one view': (lambda z: kernel_energy(z[0], LEGENDRE[3]), 45),
    'moments': (lambda z: sum(moment_terms(z, PAIRS)), 55),
    'correlation': (lambda z: sum(correlation_terms(z, None, PAIRS)), 45),
    'contrast': (lambda z: nt_xent(z, 0.2), 45),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_functions(name):
    loss, limit = FUNCTIONS[name]
    counted = launches(loss, 1024, 2048)
    assert 20 < counted.total <= limit, counted
