"""Encoders side by side on the evaluation part of a config, with raw pixels as the floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmkernel.evaluation.features import extract_features, raw_pixels

RAW = 'raw pixels'
UNTRAINED = 'untrained encoder'


class FeatureSet(NamedTuple):
    """Features and labels of the training and the test source under one encoder."""

    name: str
    train_x: Tensor  # (N, d)
    train_y: Tensor  # (N,)
    test_x: Tensor  # (M, d)
    test_y: Tensor  # (M,)


def untrained_encoder(cfg: Any, seed: int = 0) -> nn.Module:
    """The model of ``cfg`` as it is before its first step; the caller's random state is left alone."""
    from mmkernel.models import build_model  # brings timm: seconds that a kNN on cached features need not pay

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(cfg)
        model.init_weights()
    return model


def feature_sets(
    cfg: Any,
    encoders: Mapping[str, nn.Module],
    raw: bool = True,
    stage: str = 'backbone',
    progress: Callable[[str, int, int], None] | None = None,
    cache: str | Path | None = None,
) -> Iterator[FeatureSet]:
    """One FeatureSet per row of the table: raw pixels, then ``encoders`` in their order, made when asked for.

    ``cache``: a folder where features are kept between calls; see ``extract_features``.
    """
    part = cfg.get('evaluation')
    if part is None:
        raise KeyError(
            "the config has no 'evaluation' part; expected evaluation=dict(train=<source>, test=<source>, "
            "transform=dict(type='CenterView', ...))."
        )
    settings = {key: part[key] for key in ('transform', 'batch_size', 'num_workers') if key in part}
    settings['cache'] = cache
    makers: dict[str, Callable] = {RAW: raw_pixels} if raw else {}
    for name, model in encoders.items():
        makers[name] = lambda source, model=model, **kwargs: extract_features(model, source, stage=stage, **kwargs)
    for name, make in makers.items():
        report = (lambda done, total, name=name: progress(name, done, total)) if progress else None
        train_x, train_y = make(part['train'], progress=report, **settings)
        test_x, test_y = make(part['test'], progress=report, **settings)
        yield FeatureSet(name, train_x, train_y, test_x, test_y)


def evaluate(
    cfg: Any, encoders: Mapping[str, nn.Module], score: Callable[..., dict], raw: bool = True, **kwargs: Any
) -> list[dict]:
    """One row ``dict(name=, width=, scores=score(train_x, train_y, test_x, test_y))`` per encoder, raw pixels first.

    ``score``: :func:`weighted_knn`, :func:`linear_probe`, :func:`few_label_scores`, or any function like them.
    """
    return [
        dict(name=name, width=data[0].shape[1], scores=score(*data))
        for name, *data in feature_sets(cfg, encoders, raw, **kwargs)
    ]
