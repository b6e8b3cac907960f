"""The one pretraining model: views -> Embeddings -> head."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmkernel.checks import check_words
from mmkernel.losses.alignment import pairs_of_views
from mmkernel.models.embeddings import BATCHINGS, Embeddings, encode, project
from mmkernel.models.feature_extractor import FeatureExtractor
from mmkernel.models.image_sizes import with_image_sizes
from mmkernel.models.sharded import keep_shards_apart
from mmkernel.registry import MODELS, accepted_keywords


@MODELS.register_module()
class JointEmbedding(FeatureExtractor, BaseModel):
    """z = neck(backbone(view)), p = predictor(z), t = target(views, z); the head scores how they agree and spread.

    Inputs: ``dict(inputs=[V tensors (B, C, H_v, W_v)], sample_index=(B,), label=(B,))``.

    Args:
        backbone, neck, head, predictor, target: modules or their configs. Widths left None are filled in, downstream.
        online_views: indices into ``inputs`` that are encoded and trained; None: all.
        target_views: indices that serve as targets; None: all.
        batching: which views share a pass of the backbone: 'view', 'size' or 'all'.
        neck_batching: the same for neck and predictor; None: as the backbone.
        data_preprocessor: uint8 -> float; see ``ViewPreprocessor``.
    """

    stages = ('backbone', 'neck')  # h, z of the online encoder

    def __init__(
        self,
        backbone: nn.Module | dict,
        neck: nn.Module | dict,
        head: nn.Module | dict,
        predictor: nn.Module | dict | None = None,
        target: nn.Module | dict | None = None,
        online_views: Sequence[int] | None = None,
        target_views: Sequence[int] | None = None,
        batching: str = 'view',
        neck_batching: str | None = None,
        data_preprocessor: nn.Module | dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=build_part(data_preprocessor or dict(type='ViewPreprocessor')))
        self.batching, self.neck_batching = batching, neck_batching or batching
        check_words(batching=(self.batching, BATCHINGS), neck_batching=(self.neck_batching, BATCHINGS))
        self.online_views, self.target_views = online_views, target_views
        self.backbone = build_part(backbone)
        self.neck = build_part(neck, in_dim=self.backbone.out_dim)
        self.predictor = None if predictor is None else build_part(predictor, in_dim=self.neck.out_dim)
        self.target = build_part(target or dict(type='OnlineTarget'))
        if hasattr(self.target, 'attach'):
            self.target.attach(self.backbone, self.neck, self.batching, self.neck_batching)
            self.register_load_state_dict_post_hook(_allow_missing_target)
        self.head = build_part(head, in_dim=self.neck.out_dim)
        if getattr(self.neck, 'sharded', False):
            keep_shards_apart(self)
        self.observers: list[Callable[[Embeddings], None]] = []  # each sees what the head sees; a hook may come and go

    def forward(
        self,
        inputs: list[Tensor],
        sample_index: Tensor | None = None,
        label: Tensor | None = None,
        mode: str = 'loss',
        names: Sequence[str] = (),
        targets: Tensor | None = None,
    ) -> Any:
        """'loss': the head's dict, ``loss_*`` weighted and summed by the caller; 'tensor': the Embeddings; 'roots': ``roots``.

        ``label``, and ``targets`` of sets with several classes per image, may come with a batch; pretraining reads neither.
        """
        if mode == 'loss':
            return self.score(self.embeddings(inputs, sample_index))
        if mode == 'tensor':
            return self.embeddings(inputs, sample_index)
        if mode == 'roots':
            return self.roots(inputs, names)
        raise ValueError(f"mode is 'loss', 'tensor' or 'roots', got {mode!r}; for features call model.extract(images).")

    def score(self, embeddings: Embeddings) -> dict[str, Tensor]:
        """The head's dict; pure. Heads run in full precision whatever the encoder used."""
        for observe in self.observers:
            observe(embeddings)
        return self.head(embeddings)

    def embeddings(self, inputs: list[Tensor], sample_index: Tensor | None = None) -> Embeddings:
        """V normalised images (B, C, H_v, W_v) -> Embeddings."""
        online_views, target_views = self._views(len(inputs))
        online, predicted, target = self._encode(inputs, online_views, target_views)
        if sample_index is None:
            sample_index = torch.arange(len(inputs[0]), device=online.device)
        pairs = pairs_of_views(online_views, target_views)
        columns = self.neck.out_dim if getattr(self.neck, 'spread', False) else None
        views = online_views, target_views
        return Embeddings(online, predicted, target, pairs, sample_index, *views, columns=columns)

    def roots(self, inputs: list[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """Where gradients taken at the embeddings enter the graph again: 'online', 'predicted', 'target' or parameters by name.

        Parameters pass through here so that a wrapper that watches what a forward pass returns sees them used.
        """
        encoded = self._encode(inputs, *self._views(len(inputs)), with_target='target' in names)
        found = dict(zip(('online', 'predicted', 'target'), encoded, strict=True))
        parameters = dict(self.named_parameters())
        return {name: found[name] if name in found else parameters[name].view_as(parameters[name]) for name in names}

    def _views(self, count: int) -> list[tuple[int, ...]]:
        """Indices of the online views and of the target views, of a batch of ``count`` views."""
        found = []
        for name in ('online_views', 'target_views'):
            chosen = getattr(self, name)
            if any(not 0 <= v < count for v in chosen or ()):
                raise ValueError(
                    f'{name} = {chosen} but a batch has {count} views, numbered 0 to {count - 1}: check the data config.'
                )
            found.append(tuple(range(count) if chosen is None else chosen))
        return found

    def _encode(
        self, inputs: list[Tensor], online_views: tuple, target_views: tuple, with_target: bool = True
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """online and predicted (V, B, q), one tensor without a predictor; target (G, B, q)."""
        views = [inputs[v] for v in online_views]
        online = encode(self.backbone, self.neck, views, self.batching, self.neck_batching)
        predicted = online if self.predictor is None else project(self.predictor, online, views, self.neck_batching)
        if not with_target:
            return online, predicted, None
        rows: Tensor | None = online  # of the target views; None if one of them is not among the online views
        if online_views != target_views:
            positions = [online_views.index(g) for g in target_views if g in online_views]
            if len(positions) < len(target_views):
                rows = None
            elif positions == list(range(len(positions))):  # the large crops before the small ones: no copy
                rows = online[: len(positions)]
            else:
                rows = torch.stack([online[i] for i in positions])
        return online, predicted, self.target([inputs[g] for g in target_views], rows)

    def commit(self, real: Tensor | None = None) -> None:
        """After an attempt at an optimizer step: let the head remember what it staged, where ``real`` is set."""
        self.head.commit(real=real)

    def init_weights(self) -> None:
        """Parts initialise themselves when they are built; only a target that mirrors the encoder has something to do."""
        if hasattr(self.target, 'start'):
            self.target.start()
        self._is_init = True

    def really_missing(self, keys: Sequence[str]) -> list[str]:
        """Keys that weights to be loaded lack and need: not all those of a target that starts from the online encoder."""
        whole = {f'target.{name}' for name, _ in self.target.named_parameters()}
        spared = hasattr(self.target, 'attach') and whole <= set(keys)
        return [key for key in keys if not (spared and key.startswith('target.'))]


def _allow_missing_target(model: nn.Module, keys: Any) -> None:
    """Weights without a target's are complete: loading the online encoder started the target from it."""
    keys.missing_keys[:] = model.really_missing(keys.missing_keys)


def build_model(cfg: Any) -> nn.Module:
    """The model of a whole config, with the config's ``data_preprocessor`` as its own, as a Runner would build it."""
    return MODELS.build(model_config(cfg))


def model_config(cfg: Any) -> dict:
    """The ``model`` of a whole config, with what other parts of the config tell it: normalisation, and sizes of images."""
    model = dict(cfg['model'])
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', cfg['data_preprocessor'])
    return with_image_sizes(model, cfg)


def build_part(part: nn.Module | dict, in_dim: int | None = None) -> nn.Module:
    """A part from its config; ``in_dim`` is filled in where the part takes one and the config gives none."""
    if isinstance(part, nn.Module):
        return part
    part = dict(part)
    factory = MODELS.get(part['type']) if isinstance(part['type'], str) else part['type']
    if in_dim is not None and part.get('in_dim') is None and 'in_dim' in accepted_keywords(factory)[0]:
        part['in_dim'] = in_dim
    return MODELS.build(part)


def require_width(part: nn.Module, in_dim: int | None) -> int:
    """``in_dim``; ValueError where it is None for a part that needs the width of its input."""
    if in_dim is None:
        name = type(part).__name__
        raise ValueError(
            f'{name}.in_dim is None, but {name} needs the width q of embeddings (B, q). Give it as in_dim=q; a head passes it on '
            'to its parts, and a JointEmbedding fills it in.'
        )
    return in_dim
