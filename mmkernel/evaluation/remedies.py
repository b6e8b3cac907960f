"""What to change where an embedding is ill: causes that the parts of a model suggest, and weights that its head has."""

from collections.abc import Iterable
from numbers import Real
from typing import Any

from torch import nn

from mmkernel.kernels import Kernel

HEALTHY, DOUBTFUL, COLLAPSED = 'healthy', 'doubtful', 'collapsed'
ALIGNING = ('alignment', 'invariance')
SPREADING = {  # term: what is missing where its weight is 0, and the statistics that are low then
    'kernel': ('nothing pushes embeddings apart', ('std', 'rank')),
    'density': ('nothing pushes embeddings apart', ('std', 'rank')),
    'entropy': ('nothing keeps the volume up', ('std', 'rank')),
    'normality': ('nothing spreads embeddings', ('std', 'rank')),
    'spectrum': ('nothing spreads embeddings', ('std', 'rank')),
    'contrast': ('nothing pushes embeddings apart', ('std', 'rank')),
    'variance': ('nothing keeps the variance up', ('std',)),
    'covariance': ('nothing decorrelates the dimensions', ('rank',)),
    'off_diagonal': ('nothing decorrelates the dimensions', ('rank',)),
}


def remedy(statistic: str, state: str, model: nn.Module | None) -> str:
    """The clause that completes "<symptom>, ...": the most specific cause that the parts of ``model`` suggest.

    ``statistic``: 'std', 'rank' or 'retrieval', the one that is low; ``state``: 'doubtful' or 'collapsed'. A weight is named
    only where a head of ``model`` has it.
    """
    parts = heads_of(model)
    aligning = [option for part in parts for option in weights_of_terms(part, ALIGNING)]
    spreading = [option for part in parts for option in weights_of_terms(part, SPREADING, statistic)]
    if statistic == 'retrieval':
        more = f', or raise {_either(aligning)}' if aligning else ''
        return f'train longer, or weaken the augmentations{more}'
    if statistic == 'std' and state == DOUBTFUL:
        otherwise = f'raise {_either(spreading)}' if spreading else 'look again later in the run'
        return f'harmless if the objective ignores the mean and neighbours look alike; otherwise {otherwise}'
    for part in parts:
        if found := _cause(part, statistic):
            return found
    online = type(getattr(model, 'target', None)).__name__ == 'OnlineTarget'
    if statistic == 'std' and online and getattr(model, 'predictor', None) is not None:
        return 'as expected of a predictor whose target is trained along; use a StopGradientTarget or a MomentumTarget'
    if not parts:  # it is not known
        return (
            'raise the weight of the term that spreads embeddings, if the objective has one, or lower the learning rate'
        )
    if not spreading:
        return 'lower the learning rate, or train longer: the head has no weight of a term that spreads embeddings'
    lower = f' or lower {_either(aligning)}' if aligning else ''
    return f'raise {_either(spreading)}{lower}, or train longer'


def heads_of(model: nn.Module | None) -> list[nn.Module]:
    """The terms of a SumHead, or the only head."""
    head = getattr(model, 'head', None)
    return [part for part in getattr(head, 'heads', {'': head}).values() if part is not None]


def weights_of_terms(head: nn.Module, terms: Iterable[str], statistic: str | None = None) -> list[str]:
    """'<term>_weight (now 40)' of each of ``terms`` whose weight ``head`` has, as an attribute or in its ``weights``."""
    found = []
    for term in terms:
        value = _weight(head, term)
        if value is not None and (statistic is None or statistic in SPREADING[term][1]):
            found.append(f'{term}_weight (now {value:g})')
    return found


def _weight(head: nn.Module, term: str) -> float | None:
    weights: Any = getattr(head, 'weights', None)
    value = getattr(head, f'{term}_weight', weights.get(term) if isinstance(weights, dict) else None)
    return float(value) if isinstance(value, Real) else None


def _either(options: list[str]) -> str:
    return ' or '.join(options)


def _cause(head: nn.Module, statistic: str) -> str | None:
    """A weight of 0 where the objective needs one; a kernel of too low an order, or too weak."""
    for word, (missing, statistics) in SPREADING.items():
        if statistic in statistics and _weight(head, word) == 0:
            return f'as expected with {word}_weight = 0: {missing}; raise it'
    kernel = getattr(head, 'kernel', None)
    if not isinstance(kernel, Kernel) or _weight(head, 'kernel') is None:
        return None
    if statistic == 'rank' and getattr(kernel, 'order', None) == 1:
        return 'as expected of an L = 1 kernel, which sees the mean alone; raise the order or b_2'
    try:
        blind = statistic == 'rank' and 2 in kernel.positive_definiteness(64, 2).vanishing
    except ValueError:
        blind = False  # b_2 is not known
    if blind:
        return 'as expected of a kernel with b_2 = 0, which is blind to the covariance; raise b_2'
    against = _weight(head, 'alignment')
    lower = '' if against is None else f' or lower alignment_weight (now {against:g})'
    return f'because the alignment outweighs the kernel; raise kernel_weight{lower}'
