"""Targets of predictions: the online embeddings, their stop-gradient, or a momentum encoder.

A target maps (images of the target views, their online embeddings) -> (G, B, q).

A target of your own is a module with that ``forward``. It may define ``attach(backbone, neck, batching, neck_batching)`` (the
online encoder, once, when the model is built), ``start()`` (after the weights were initialised), ``update(momentum, real)``
(``MomentumUpdateHook``, at each attempt at a step; ``real`` as of ``Head.commit``), ``gradient`` (False: none flows through it)
and what ``Head`` lists for any module.
"""

import copy

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from mmkernel.checks import check_numbers
from mmkernel.distributed import gather_rows, rank, world_size
from mmkernel.distributed.shards import own_part
from mmkernel.models.embeddings import encode
from mmkernel.models.state import HostCounters, sent
from mmkernel.registry import MODELS


@MODELS.register_module()
class OnlineTarget(nn.Module):
    """t = z: the online embeddings themselves, gradient included."""

    gradient = True  # whether gradient flows through the target; True where a target does not define it

    def forward(self, views: list[Tensor], online: Tensor | None) -> Tensor:
        """``online``: (G, B, q), or None where a target view is not among the online views."""
        if online is None:
            raise ValueError(
                f'{type(self).__name__} takes its rows from the online views, but target_views names a view that '
                'online_views leaves out. Add it to online_views.'
            )
        return online


@MODELS.register_module()
class StopGradientTarget(OnlineTarget):
    """t = sg(z): the online embeddings as constants. Chen & He, CVPR 2021."""

    gradient = False

    def forward(self, views: list[Tensor], online: Tensor | None) -> Tensor:
        return super().forward(views, online).detach()


@MODELS.register_module()
class MomentumTarget(HostCounters):
    """t = neck_m(backbone_m(view)) with parameters t <- m t + (1 - m) online. He et al., CVPR 2020; Grill et al., NeurIPS 2020.

    Only parameters are averaged: the copy runs in train mode on its own batches and keeps its own batch-norm buffers.
    It equals the online encoder again after initialisation and after weights were loaded into that.

    Args:
        shuffle_bn: encode the rows of the global batch in another order than they came, so that a row and its positive
            are not in one batch-norm batch. Needs several processes, or ``sub_batches``, and no SyncBN.
        sub_batches: number of parts, each with its own batch-norm statistics, of this process's rows; with
            ``shuffle_bn`` it stands in for as many processes.
    """

    gradient = False

    def __init__(self, shuffle_bn: bool = False, sub_batches: int | None = None) -> None:
        super().__init__()
        check_numbers('MomentumTarget', whole=True, none=True, sub_batches=sub_batches)
        self.shuffle_bn, self.sub_batches = shuffle_bn, sub_batches or 1
        self._online: tuple[nn.Module, ...] = ()  # a tuple, so that they are not registered here a second time
        if shuffle_bn:  # passes so far: the seed of the next order, the same on every rank and after a resume
            self.counters, self.passes = ('passes',), 0

    def attach(self, backbone: nn.Module, neck: nn.Module, batching: str = 'view', neck_batching: str = 'view') -> None:
        """Copy the online encoder, which this target follows from now on: ``neck(backbone(images))``, any two modules."""
        self.backbone, self.neck = copy.deepcopy(backbone), copy.deepcopy(neck)
        self.requires_grad_(False)
        self._online, self.batching, self.neck_batching = (backbone, neck), batching, neck_batching
        for module in self._online:
            module.register_load_state_dict_post_hook(self.start)

    @torch.no_grad()
    def start(self, *loaded: object) -> None:
        """t <- online, parameters only. ``loaded``: arguments of the hook that torch calls after loading; unused."""
        for own, online in zip(*self._parameters_of_both(), strict=True):
            own.copy_(online)

    @torch.no_grad()
    def update(self, momentum: float, real: Tensor | None = None) -> None:
        """t <- momentum t + (1 - momentum) online, where ``real``, a 0-dim bool tensor, is set (None: it is)."""
        check_numbers('MomentumTarget.update', zero=True, most=1.0, momentum=momentum)
        own, online = self._parameters_of_both()
        # plain descent on ||t - online||^2 / 2 at the rate 1 - momentum: one kernel, which can skip a step by a flag on the device
        sgd(
            own, online, [None] * len(own), fused=True, found_inf=None if real is None else 1.0 - real.float(), weight_decay=1.0,
            momentum=0.0, lr=1 - momentum, dampening=0.0, nesterov=False, maximize=True,
        )  # fmt: skip

    def _parameters_of_both(self) -> tuple[list[Tensor], list[Tensor]]:
        both = (self.backbone, self.neck), self._online
        own, online = ([own_part(p) for module in modules for p in module.parameters()] for modules in both)
        return own, online

    @torch.no_grad()
    def forward(self, views: list[Tensor], online: Tensor | None = None) -> Tensor:
        """G images (B, C, H_g, W_g) -> (G, B, q)."""
        B = views[0].shape[0]
        if not self.shuffle_bn:
            return self._encode_parts(views)
        self.passes += self.training
        order = torch.randperm(B * world_size(), generator=torch.Generator().manual_seed(self.passes))
        order = sent(order, views[0].device)
        own = order.view(world_size(), B)[rank()]
        z = self._encode_parts([gather_rows(view)[own] for view in views])  # (G, B, q), rows in the new order
        shuffled = gather_rows(z.transpose(0, 1))  # (N, G, q)
        back = order.argsort().view(world_size(), B)[rank()]
        return shuffled[back].transpose(0, 1)

    def _encode_parts(self, views: list[Tensor]) -> Tensor:
        self.check_local_batch(views[0].shape[0])
        parts = zip(*(view.chunk(self.sub_batches) for view in views), strict=True)
        encoded = [encode(self.backbone, self.neck, list(part), self.batching, self.neck_batching) for part in parts]
        return encoded[0] if len(encoded) == 1 else torch.cat(encoded, dim=1)

    def check_local_batch(self, rows: int) -> None:
        """ValueError unless the rows of one process fall into ``sub_batches`` equal parts."""
        if rows % self.sub_batches:
            raise ValueError(
                f'MomentumTarget.sub_batches = {self.sub_batches} does not divide the local batch of {rows}.'
            )
