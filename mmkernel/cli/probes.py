"""``mmkernel knn | linear | features``: what frozen features of an encoder know, and the features themselves."""

from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from mmengine.dist import is_main_process
from rich.markup import escape
from torch import Tensor

from mmkernel.checks import check_numbers
from mmkernel.cli.given_data import Images, give_images
from mmkernel.cli.judging import (
    NONE,
    All,
    Labelled,
    Named,
    Numbers,
    Reading,
    Several,
    Whole,
    compare,
    opened,
    place_of_result,
    progress_bar,
    publish,
)
from mmkernel.cli.options import Flag
from mmkernel.cli.terminal import Parameter, console, print_json, say
from mmkernel.datasets.training import as_source
from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import (
    extract_features,
    linear_probe,
    linear_sweep,
    logistic_regression,
    probe_table,
    weighted_knn,
)
from mmkernel.evaluation.inputs import SCALINGS
from mmkernel.evaluation.linear import LEARNING_RATES, WEIGHT_DECAYS
from mmkernel.writing import replacing, set_aside

LARGE = 50_000  # images; above, L-BFGS over all of them at once takes hours
Protocol = Literal['sweep', 'lbfgs', 'sgd']
Scaling = Literal[SCALINGS]


def knn(*checkpoint: Named, k: Whole = (10, 20, 100, 200), temperature: float = 0.07, shared: All = NONE) -> None:
    """Weighted kNN (Zheng et al., ICLR 2023), beside raw pixels and the untrained encoder.

    Args:
        k: numbers of neighbours.
        temperature: T of the weights exp(cos / T).
    """
    this = opened(checkpoint, shared)
    place_of_result('knn', this, shared)
    rows = compare(this, shared, partial(weighted_knn, k=list(k), temperature=temperature, device=shared.device))
    table = probe_table(rows, f'weighted kNN, T = {temperature:g}: top-1/top-5 in percent')
    publish('knn', this, shared, rows, table, k=list(k), temperature=temperature)


def linear(
    *checkpoint: Named,
    protocol: Annotated[tuple[Protocol, ...], Several] = ('sweep', 'lbfgs', 'sgd'),
    epochs: int = 100,
    batch_size: int = 256,
    lrs: Numbers = LEARNING_RATES,
    weight_decays: Numbers = WEIGHT_DECAYS,
    scalings: Annotated[tuple[Scaling, ...], Several] = SCALINGS,
    seeds: Whole = (0, 1, 2),
    lr: float = 0.4,
    weight_decay: float = 1e-6,
    strength: float = 100.0,
    force: Flag = False,
    shared: All = NONE,
) -> None:
    """Linear probes on cached features, beside raw pixels and the untrained encoder.

    sweep: every learning rate, weight decay and scaling of a grid at once, chosen on held-out training images; sgd: one recipe
    (Zheng et al., ICLR 2023: the defaults); lbfgs: logistic regression.

    Args:
        lrs: of the sweep.
        weight_decays: of the sweep.
        scalings: of the sweep.
        seeds: of the sweep: one refit each.
        lr: of sgd, absolute: not scaled by the batch.
        weight_decay: of sgd.
        strength: scikit-learn's C of lbfgs.
        force: lbfgs even above 50 000 images.
    """
    this = opened(checkpoint, shared)
    place_of_result('linear', this, shared)
    settings: dict[str, Any] = dict(protocol=list(protocol), epochs=epochs, batch_size=batch_size, lrs=list(lrs))
    settings |= dict(weight_decays=list(weight_decays), scalings=list(scalings), seeds=list(seeds))
    settings |= dict(lr=lr, weight_decay=weight_decay, strength=strength)
    rows = compare(this, shared, partial(linear_scores, settings, shared, force))
    publish('linear', this, shared, rows, probe_table(rows, 'linear probe: top-1/top-5 in percent'), **settings)


def linear_scores(given: dict[str, Any], shared: Labelled, force: bool, *data: Tensor) -> dict[str, dict[str, float]]:
    """{protocol: accuracies} for one encoder."""
    found, protocol, epochs = {}, given['protocol'], given['epochs']
    with progress_bar() as bar:
        task = bar.add_task('linear heads')
        common = dict(device=shared.device, progress=lambda done, of: bar.update(task, completed=done, total=of))
        if 'sweep' in protocol:
            grid = (given['lrs'], given['weight_decays'], given['scalings'])
            best = linear_sweep(*data, *grid, epochs, given['batch_size'], seeds=given['seeds'], **common)
            found[f'best of {best["heads"]} heads'] = best
            if best['at_edge']:
                edge = f'{" and ".join(best["at_edge"])} at the edge of what was offered'
                say(f'{data[0].shape[1]} features: {edge}: {escape(str(best["chosen"]))}.')
        if 'sgd' in protocol:
            decay = dict(weight_decay=given['weight_decay'], seed=shared.seed)
            found[f'SGD, {epochs} epochs'] = linear_probe(
                *data, epochs, given['batch_size'], given['lr'], **decay, **common
            )
    if 'lbfgs' in protocol and (force or len(data[0]) <= LARGE):
        found[f'L-BFGS, l2, C = {given["strength"]:g}'] = logistic_regression(*data, given['strength'])
    elif 'lbfgs' in protocol:
        console.print(f'L-BFGS left out: {len(data[0])} training images exceed {LARGE}; --force runs it.')
    return found


def features(
    *checkpoint: Named,
    data: Images = None,
    size: int | None = None,
    batch_size: int | None = None,
    shared: Annotated[Reading, Parameter(name='*')] = Reading(),  # noqa: B008
) -> None:
    """Features of every image of a folder, with labels and names where there are any, as arrays of an npz file.

    Args:
        data: a folder, a pack, shards, parquet, or a source in quotes; default: the test images of the config.
        size: side of the images; default: that of the checkpoint.
        batch_size: images at a time.
    """
    check_numbers(whole=True, none=True, **{'--batch-size': batch_size})
    this = opened(checkpoint, shared, 'own')
    give_images(this.cfg, data, size)
    place, part = place_of_result('features', this, shared, '.npz'), this.cfg.evaluation
    model = list(this.encoders(shared.stage, shared.seed, shared.device).values())[-1]
    source = as_source(part.test)
    with progress_bar() as bar:
        task = bar.add_task('features')
        note = lambda done, total: bar.update(task, completed=done, total=total)  # noqa: E731
        settings = dict(batch_size=batch_size or part.get('batch_size', 64), num_workers=part.get('num_workers', 2))
        x, y = extract_features(
            model, part.test, part.get('transform'), stage=shared.stage, progress=note, cache=shared.kept, **settings
        )
    first = is_main_process()
    leave_processes()
    if not first:
        return
    names = source.file_names()
    arrays = dict(features=x.numpy(), labels=np.asarray(y), classes=np.array(y.classes, str))
    arrays |= dict(names=np.array(list(names), str)) if names is not None else {}
    with replacing(place) as partial_file, partial_file.open('wb') as file:
        if place.exists():
            set_aside(place)
        np.savez(file, **arrays)
    say(f'written: {escape(str(place))}: {", ".join(f"{name} {value.shape}" for name, value in arrays.items())}')
    if shared.json:
        print_json(dict(out=str(place), images=len(x), width=x.shape[1], stage=shared.stage, classes=list(y.classes)))
