"""The base class of heads (objectives as modules), and the sum of several heads."""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmkernel.models.embeddings import Embeddings
from mmkernel.models.joint_embedding import build_part
from mmkernel.registry import MODELS

PATIENCE = 256  # training losses without a commit that gradient accumulation may explain


class Head(nn.Module):
    """Embeddings -> named losses. A head of your own defines ``loss``, and ``commit`` if it remembers anything.

    In a training loop of your own a head is called like any other objective, and returns the sum of its ``loss_`` parts:

        loss = head(z1, z2)                                                  # as many views as there are, (B, q) each
        loss = head(z1, z2, predicted=(p1, p2), target=(t1.detach(), t2.detach()))
        loss.backward(); optimizer.step(); head.commit()

    What else a head, or any module inside a model, may define; each is called where it exists:

    - ``in_dim`` among its arguments: filled in with q. ``needs_sample_index``: whether ``loss`` reads which images these are.
    - ``check_batch(rows)``, ``check_local_batch(rows)``: before training, with the rows of a global batch and of one process;
      a ValueError if they do not fit.
    - ``enable()`` and ``enabled``: of a queue that waits for ``QueueHook``.
    - ``fit_buffers(state)``: before weights are loaded, to size buffers that are as large as the data set.
    - ``prepare(num_samples)``, ``remember``, ``cluster``, ``reset_classifiers``: as of ``ClusterHead``, for ``ClusterHook``.
    - ``distance_weight``, (option, value), and ``reduction``: of a squared distance, for the advice on weights.
    """

    needs_sample_index = False
    takes_columns = False  # whether ``loss`` takes embeddings of a sharded neck, ``Embeddings.columns``
    in_dim: int | None = None  # q, where its parameters have that width
    _waiting = 0  # training losses since the last commit

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        """Pure. Parts named ``loss_*``, weighted, are summed by the trainer; others, without gradient, are logged.

        Values are those of the global batch; gradients as ``mmkernel.distributed`` rules.
        """
        raise NotImplementedError(
            f'{type(self).__name__} has no loss(embeddings): the one method that a head must define.'
        )

    def commit(self, real: Tensor | None = None) -> None:
        """Once per attempt at an optimizer step: move what ``loss`` staged into buffers. Nothing is staged by default.

        ``real``: 0-dim bool tensor, whether the step counts (None: it does); where it does not, buffers keep their bits
        (``mmkernel.models.move``), but what was staged is forgotten, and what the host counts is counted.
        """
        self._waiting = 0

    def forward(
        self,
        *views: Tensor | Embeddings,
        predicted: Tensor | Sequence[Tensor] | None = None,
        target: Tensor | Sequence[Tensor] | None = None,
        sample_index: Tensor | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """V views, (B, q) each -> the scalar loss. Half precision is computed in float32, under autocast too.

        Args:
            views: embeddings of the V views of B images; one ``Embeddings`` instead returns the dict of ``loss``.
            predicted: predictor(view) of each view; None: the views themselves.
            target: what is to be predicted, for the first G <= V views: detached embeddings, or a momentum encoder's. One
                view and one target are two views of the images. None: the views themselves, with their gradient.
            sample_index: (B,) index of each image in the data set, for heads that remember images.

        ValueError: other shapes, a target without a view, or no pair of views where the objective needs one.
        """
        whole = len(views) == 1 and isinstance(views[0], Embeddings)
        if not whole and sample_index is None and self.needs_sample_index:
            raise ValueError(
                f'{type(self).__name__} remembers images by their index in the data set: call head(z1, z2, '
                'sample_index=index), index being (B,) integers that the data set gives with each image.'
            )
        device = getattr(views[0].online if whole else views[0] if views else None, 'device', torch.device('cpu'))
        with torch.autocast(device.type, enabled=False):
            parts = self._parts(views[0] if whole else Embeddings.of(views, predicted, target, sample_index))
        return parts if whole else sum(value for name, value in parts.items() if name.startswith('loss_'))

    def _parts(self, embeddings: Embeddings) -> dict[str, Tensor]:
        if self.in_dim not in (None, embeddings.width):
            raise ValueError(
                f'{type(self).__name__} was made for embeddings of width {self.in_dim}, got {tuple(embeddings.online.shape[1:])}: '
                f'make it with in_dim={embeddings.width}.'
            )
        return self.loss(embeddings.promoted())

    def expect_commit(self) -> bool:
        """For ``loss`` of a head that ``commit`` changes: whether a step may follow, so that something is to be staged.

        Not in eval mode or under ``no_grad``. Warns once if ``commit`` is never called.
        """
        training = self.training and torch.is_grad_enabled()
        self._waiting += training
        if training and self._waiting == PATIENCE + 1:
            warnings.warn(
                f'{type(self).__name__} has made {PATIENCE + 1} training losses, and commit() was never called in between: what '
                'it keeps from step to step (queue, prototypes, permutations) stays as it is. Call head.commit() after each '
                'optimizer.step().',
                stacklevel=3,
            )
        return training


def weighted(**terms: tuple[float, Tensor]) -> dict[str, Tensor]:
    """What ``loss`` returns of terms (weight, value): weight * value as 'loss_<name>', the value for the log as '<name>'."""
    losses = {f'loss_{name}': value if weight == 1 else weight * value for name, (weight, value) in terms.items()}
    return losses | {name: value.detach() for name, (_, value) in terms.items()}


@MODELS.register_module()
class SumHead(Head):
    """sum_h loss_h(embeddings): every part keeps its own weights, keys become ``loss_<name>_<word>`` and ``<name>_<word>``.

    For instance the variance and covariance terms beside a cosine prediction (Bardes et al., ICLR 2022, table 4):
    ``heads=dict(prediction=dict(type='CosinePredictionHead'), spread=dict(type='VarianceCovarianceHead', ...))``.
    """

    def __init__(self, heads: dict[str, Head | dict], in_dim: int | None = None) -> None:
        super().__init__()
        if not isinstance(heads, Mapping) or not heads:
            given = f'a {type(heads).__name__}' if heads else 'none'
            raise ValueError(
                f'SumHead.heads is a dict that names heads, e.g. dict(spread=dict(type=...)); got {given}.'
            )
        for name in heads:
            if 'loss' in name or not name.isidentifier():
                raise ValueError(
                    f"SumHead: {name!r} cannot name a head: names become parts of log keys, where 'loss' means a term to sum."
                )
        self.in_dim = in_dim
        self.heads = nn.ModuleDict({name: build_part(head, in_dim) for name, head in heads.items()})

    def loss(self, embeddings: Embeddings) -> dict[str, Tensor]:
        parts = {}
        for name, head in self.heads.items():
            for key, value in head.loss(embeddings).items():
                word = key.removeprefix('loss_')
                parts[f'{name}_{key}' if word == key else f'loss_{name}_{word}'] = value
        return parts

    def commit(self, real: Tensor | None = None) -> None:
        for head in self.heads.values():
            head.commit(real=real)

    @property
    def needs_sample_index(self) -> bool:
        return any(getattr(head, 'needs_sample_index', False) for head in self.heads.values())

    @property
    def takes_columns(self) -> bool:
        return all(getattr(head, 'takes_columns', False) for head in self.heads.values())
