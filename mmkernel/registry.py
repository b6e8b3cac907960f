"""Names in configs -> classes. Every registry is a child of mmengine's root of the same kind, so mmengine's own parts
(``DefaultSampler``, ``SGD``, ``LoggerHook``, ...) are found too; ``KERNELS`` has no such root and is one of its own.

Locations load at the first look-up: importing this file imports none of the rooms.
"""

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

import mmengine.registry as roots
from mmengine.registry import Registry as _Registry

from mmkernel.checks import did_you_mean


class Registry(_Registry):
    """A registry whose errors name the nearest right word."""

    def get(self, key: str) -> Any:
        """What is registered under ``key``; unlike mmengine's, never an import of a module that a text happens to name."""
        if key not in self:
            raise KeyError(unknown_type_message(key, self.name, self.names()))
        return self.entries()[_bare(key)]

    def entries(self) -> dict[str, Any]:
        """{name: component} of all that a config may use here, the parents' included."""
        found, registry = {}, self
        while registry is not None:
            registry.import_from_location()
            found, registry = {**registry.module_dict, **found}, registry.parent
        return found

    def names(self) -> list[str]:
        return sorted(self.entries())

    def __contains__(self, key: str) -> bool:
        return _bare(key) in self.entries()

    def build(self, cfg: dict, *args: Any, **kwargs: Any) -> Any:
        """What ``cfg`` describes. An error says as ``error.built`` which part of a config was being built, the innermost."""
        try:
            if isinstance(cfg, dict) and isinstance(cfg.get('type'), str):
                given = {**cfg, **(kwargs.get('default_args') or {})}
                check_keywords(self.get(cfg['type']), [k for k in given if k not in ('type', '_scope_')])
            return super().build(cfg, *args, **kwargs)
        except Exception as error:
            error.built = getattr(error, 'built', cfg)
            raise


def _bare(key: str) -> str:
    return str(key).removeprefix('mmengine.').removeprefix('mmkernel.')


def unknown_type_message(key: str, registry: str, names: list[str]) -> str:
    hint = did_you_mean(key, names, f'Known names: {", ".join(names)}.', n=3)
    return (
        f"type '{key}' is not registered among the {registry}s. {hint} "
        "A class of your own must be imported first: custom_imports=dict(imports=['your_module'])."
    )


def accepted_keywords(factory: Callable) -> tuple[list[str], bool]:
    """Keyword names that ``factory`` takes, and whether it takes any other as well."""
    parameters = inspect.signature(factory).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def check_keywords(factory: Callable, given: list[str], where: str = '') -> None:
    """Raise TypeError for a keyword that ``factory`` does not take; name the nearest one that it does."""
    try:
        accepted, anything = accepted_keywords(factory)
    except ValueError:  # builtins without a signature
        return
    if not anything:
        check_names(given, accepted, f'{where + ": " if where else ""}{getattr(factory, "__name__", str(factory))}')


def check_names(given: Iterable[str], known: Collection[str], who: str, otherwise: str = '') -> None:
    """Raise TypeError for a name that is not ``known``, with the nearest that is, or ``otherwise`` if none is near."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, otherwise, cutoff=0.6)
            raise TypeError(
                f"{who} got an unknown keyword '{name}'. {hint + ' ' if hint else ''}"
                f'It takes: {", ".join(known) or "no keywords"}.'
            )


def _child(root: str, *locations: str) -> Registry:
    parent = getattr(roots, root)
    return Registry(parent.name, parent=parent, scope='mmkernel', locations=list(locations))


KERNELS = Registry('kernel', scope='mmkernel', locations=['mmkernel.kernels.text'])
MODELS = _child('MODELS', 'mmkernel.models')
DATASETS = _child('DATASETS', 'mmkernel.datasets')
TRANSFORMS = _child('TRANSFORMS', 'mmkernel.datasets')
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'mmkernel.datasets')
HOOKS = _child('HOOKS', 'mmkernel.engine')
LOOPS = _child('LOOPS', 'mmkernel.engine')
OPTIMIZERS = _child('OPTIMIZERS', 'mmkernel.engine')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'mmkernel.engine')
PARAM_SCHEDULERS = _child('PARAM_SCHEDULERS', 'mmkernel.engine')
VISUALIZERS = _child('VISUALIZERS')
FUNCTIONS = _child('FUNCTIONS', 'mmkernel.datasets')
RUNNERS = _child('RUNNERS', 'mmkernel.engine')

ALL = (
    MODELS, KERNELS, DATASETS, TRANSFORMS, DATA_SAMPLERS, HOOKS, LOOPS,
    OPTIMIZERS, OPTIM_WRAPPERS, PARAM_SCHEDULERS, VISUALIZERS, FUNCTIONS,
)  # fmt: skip
