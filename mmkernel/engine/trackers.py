"""Weights & Biases and trackio: what a run logs, in the experiment tracker of the user."""

import sys
from importlib import import_module
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend
from mmengine.visualization.vis_backend import force_init_env

from mmkernel.engine.resume_check import resolved


class _Tracker(BaseVisBackend):
    """``library.init(...)``, then each row of scalars with its step; ``init``: further keywords of the library's ``init``.

    ``run`` names the run, and a resumed one goes on under the same name: it is that of the checkpoints, put in by the Runner.
    """

    library = ''
    experiment = property(force_init_env(lambda self: self.module))

    def __init__(
        self, save_dir: str, project: str = 'mmkernel', run: tuple[str, str] | None = None, **init: Any
    ) -> None:
        super().__init__(save_dir)
        self.project, (self.name, self.run), self.init, self.config = project, run or ('run', ''), init, None
        try:
            self.module = import_module(self.library)
        except ImportError as error:
            text = f'{type(self).__name__} needs {self.library}, which cannot be imported ({error})'
            raise ImportError(f'{text}: pip install {self.library}') from None

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """The first call of a run."""
        self.config = resolved(config.to_dict())
        _ = self.experiment  # begins

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)

    def close(self) -> None:
        if getattr(self, '_env_initialized', False):
            self._env_initialized = False
            self.finish(failed=isinstance(sys.exc_info()[1], Exception))

    def finish(self, failed: bool) -> None:
        self.module.finish()


@VISBACKENDS.register_module()
class WandbBackend(_Tracker):
    """``vis_backends=dict(wandb=dict(type='WandbBackend', project=...))``. WANDB_MODE=offline: files, for ``wandb sync``.

    A run that is resumed goes on in the same run of W&B. Curves are drawn over ``step``; steps done again are logged again.
    """

    library = 'wandb'

    def _init_env(self) -> None:
        given = dict(project=self.project, name=self.name, id=self.run or None, resume='allow', dir=self._save_dir)
        settings = self.module.Settings(console='off')  # else it stands between the log and the terminal
        more = dict(config=self.config, allow_val_change=True, settings=settings)
        self.module.init(**{**given, **more, **self.init})
        self.module.define_metric('step')
        self.module.define_metric('*', step_metric='step')

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        self.module.log({**_numbers(scalar_dict), 'step': step})

    def finish(self, failed: bool) -> None:
        self.module.finish(exit_code=int(failed))


@VISBACKENDS.register_module()
class TrackioBackend(_Tracker):
    """``vis_backends=dict(trackio=dict(type='TrackioBackend', project=...))``: a local database; ``trackio show`` is its page.

    A run that is resumed goes on under the same name.
    """

    library = 'trackio'

    def _init_env(self) -> None:
        name = f'{self.name}-{self.run[:8]}'.strip('-')
        given = dict(project=self.project, name=name, resume='allow', embed=False, config=self.config)
        self.module.init(**{**given, **self.init})

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        self.module.log(_numbers(scalar_dict), step=step)


def _numbers(scalars: dict) -> dict[str, float]:
    return {name: float(value) for name, value in scalars.items()}


TRACKERS = (WandbBackend.__name__, TrackioBackend.__name__)  # which the Runner tells the run
