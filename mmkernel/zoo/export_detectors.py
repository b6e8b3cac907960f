"""Backbones for detection frameworks, which are not run here: what was written is read back and renamed back instead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from mmkernel.zoo.detection import export_detection, from_framework
from mmkernel.zoo.export_weights import ExportError
from mmkernel.zoo.files import read_checkpoint
from mmkernel.zoo.incoming import read_arrays
from mmkernel.zoo.portable import Portable


def to_detector(framework: str) -> Callable[[Portable, Path], None]:
    """The writer for one of ``detection.FRAMEWORKS``; it returns None, as nothing has run."""

    def write(encoder: Portable, path: Path) -> None:
        pixels, state = encoder.preprocessing, encoder.backbone.state_dict()
        export_detection(state, path, framework, pixels.mean, pixels.std)
        content = read_arrays(path)['model'] if path.suffix == '.pkl' else read_checkpoint(path)['state_dict']
        back = from_framework(content, framework)
        wrong = [key for key in {**state, **back} if key not in back or not torch.equal(back[key], state[key])]
        if wrong:
            raise ExportError(f'{framework}: {len(wrong)} tensors do not come back as they were, first {wrong[0]}.')

    return write
