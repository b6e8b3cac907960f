"""The scalars of a run as one table that a spreadsheet opens."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from mmengine.registry import VISBACKENDS
from mmengine.visualization import BaseVisBackend
from mmengine.visualization.vis_backend import force_init_env

from mmkernel.evaluation.report import set_aside


@VISBACKENDS.register_module()
class CSVBackend(BaseVisBackend):
    """``scalars.csv`` in the log folder: one line per step that is logged, a column per name, empty where there is no value.

    A name that comes later (the first kNN after an epoch) adds a column at the end; the file is then written anew. One that an
    earlier run has left (where the config names one folder for all logs) is kept as ``scalars.csv.old``.
    """

    def __init__(self, save_dir: str, file: str = 'scalars.csv') -> None:
        super().__init__(save_dir)
        self.path = Path(save_dir) / file
        self.columns, self.rows = ['step'], []

    def _init_env(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            set_aside(self.path)

    @property
    @force_init_env
    def experiment(self) -> Path:
        return self.path

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        row = {'step': step, **{name: float(value) for name, value in scalar_dict.items() if name != 'step'}}
        self.rows.append(row)
        whole = not (set(row) <= set(self.columns) and self.path.is_file())
        self.columns = list(dict.fromkeys([*self.columns, *row]))
        with self.path.open('w' if whole else 'a', newline='') as file:
            writer = csv.DictWriter(file, self.columns)
            if whole:
                writer.writeheader()
            writer.writerows(self.rows if whole else [row])

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        self.add_scalars({name: value}, step)
