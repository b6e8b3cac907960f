"""From a symptom and the parts of a model to its likely cause and what to change."""

from __future__ import annotations

from torch import nn

from mmkernel.kernels import Kernel


def run_kernel(model: nn.Module | None) -> Kernel | None:
    """The kernel that the head of ``model`` trains with; None if it has none."""
    head = getattr(model, 'head', None)
    return None if head is None else next((part for part in head.modules() if isinstance(part, Kernel)), None)


def remedies(statistic: str, state: str, model: nn.Module | None) -> list[str]:
    """At least one clause that completes "<symptom>, ..."; the most specific cause that the parts of ``model`` suggest.

    ``statistic``: 'std', 'rank' or 'retrieval', the one that is low; ``state``: 'doubtful' or 'collapsed'.
    """
    if statistic == 'retrieval':
        return ['train longer, weaken the augmentations, or raise the weight of the alignment']
    if statistic == 'std' and state == 'doubtful':
        return [
            'harmless if the objective ignores the mean, and the neighbours look alike; otherwise raise what spreads'
        ]
    heads = _heads(model)
    found = [word for head in heads for word in (_repulsion(head, statistic), _order(head, statistic)) if word]
    found += _asymmetry(model) if statistic == 'std' and not found else []
    if found:
        return found[:1]
    if statistic == 'std':
        return ['raise the weight of the term that spreads embeddings, or lower the learning rate']
    return ['raise the weight of the term that spreads or decorrelates, lower that of the alignment, or train longer']


def _heads(model: nn.Module | None) -> list[nn.Module]:
    """The head, or those inside a sum of heads."""
    head = getattr(model, 'head', None)
    return [] if head is None else list(getattr(head, 'heads', {}).values()) if hasattr(head, 'heads') else [head]


def _repulsion(head: nn.Module, statistic: str) -> str | None:
    """A weight of 0 where the objective needs one."""
    missing = {
        'kernel': 'nothing pushes embeddings apart',
        'variance': 'nothing keeps the variance up',
        'covariance': 'nothing decorrelates the dimensions',
        'off_diagonal': 'nothing decorrelates the dimensions',
    }
    for word in ('kernel', 'variance') if statistic == 'std' else ('kernel', 'covariance', 'off_diagonal'):
        weights = getattr(head, 'weights', None)
        inside = weights.get(word) if isinstance(weights, dict) else None
        if getattr(head, f'{word}_weight', inside) == 0:
            return f'as expected with {word}_weight = 0: {missing[word]}; raise it'
    return None


def _order(head: nn.Module, statistic: str) -> str | None:
    """What a kernel of too low an order, or too weak a kernel, leads to."""
    kernel = getattr(head, 'kernel', None)
    if not isinstance(kernel, Kernel):
        return None
    if statistic == 'rank' and getattr(kernel, 'order', None) == 1:
        return 'as expected of an L = 1 kernel, which sees the mean alone; raise the order or b_2'
    if statistic == 'rank' and _blind(kernel, 2):
        return 'as expected of a kernel with b_2 = 0, which is blind to the covariance; raise b_2'
    weight = getattr(head, 'alignment_weight', None)
    against = '' if weight is None else f' or lower alignment_weight (now {weight:g})'
    return f'because the alignment outweighs the kernel; raise kernel_weight{against}'


def _blind(kernel: Kernel, degree: int) -> bool:
    """Whether b_l = 0 at l = ``degree``; no remedy is based on a b_l that is not known."""
    try:
        return degree in kernel.positive_definiteness(64, degree).vanishing
    except ValueError:
        return False


def _asymmetry(model: nn.Module | None) -> list[str]:
    """Prediction without negatives needs a target that is not trained along."""
    target = type(getattr(model, 'target', None)).__name__
    if getattr(model, 'predictor', None) is not None and target == 'OnlineTarget':
        return [
            'as expected of a predictor whose target is trained along; use a StopGradientTarget or a MomentumTarget'
        ]
    return []
