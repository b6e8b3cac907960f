"""Learning rates that fall from the last layer of an encoder to its first."""

from types import SimpleNamespace

from torch import Tensor, nn
from torch.optim import Optimizer

TOP = 'head.fc.weight'  # the name of a parameter above every layer


def layer_factors(model: nn.Module, decay: float) -> dict[Tensor, float]:
    """{parameter of model.backbone: decay^k}, k the number of layers above it, what stands on the encoder included.

    Clark et al., ICLR 2020 (ELECTRA); Bao et al., ICLR 2022 (BEiT). The layers are those of timm's ``group_matcher``: of a
    transformer with d blocks, positions, tokens and the projection of patches have k = d + 1, the last block (with the norm
    after it) k = 1. Errors: ValueError for an encoder that does not tell its layers, or of which nothing trains.
    """
    backbone = getattr(model, 'backbone', None)
    if not hasattr(backbone, 'group_matcher'):
        raise ValueError(
            f'optim_wrapper.layer_decay = {decay} needs the layers of model.backbone, which a '
            f'{type(backbone).__name__} does not tell: networks of timm have a method group_matcher.'
        )
    from timm.models import group_parameters  # seconds that a config without this key need not pay

    parameters = dict(backbone.named_parameters())
    named = SimpleNamespace(named_parameters=lambda: [*parameters.items(), (TOP, None)])
    layers = group_parameters(named, backbone.group_matcher(coarse=False), reverse=True)
    factors = {p: decay ** (layers[TOP] - layers[name]) for name, p in parameters.items() if p.requires_grad}
    if not factors:
        raise ValueError(f'optim_wrapper.layer_decay = {decay} has no effect: no parameter of model.backbone trains.')
    return factors


def decay_layers(optimizer: Optimizer, model: nn.Module, decay: float) -> None:
    """Split each group of ``optimizer`` by layers and multiply its rate by theirs; all else of a group stays as it is.

    The groups with the highest factor come first, so that the first one has the rate that the log shows.
    """
    factors, pieces = layer_factors(model, decay), []
    for group in optimizer.param_groups:
        layers: dict[float, list[Tensor]] = {}
        for p in group['params']:
            layers.setdefault(factors.get(p, 1.0), []).append(p)
        pieces += [
            (factor, {**group, 'params': params, 'lr': factor * group['lr']}) for factor, params in layers.items()
        ]
    optimizer.param_groups[:] = [group for _, group in sorted(pieces, key=lambda piece: -piece[0])]


def describe_layers(model: nn.Module, decay: float) -> str:
    """One line for log and dry run."""
    factors = layer_factors(model, decay).values()
    return (
        f'{decay:g}: rates x {min(factors):.3g} in the first layer of the encoder to x {max(factors):.3g} in its last'
    )
