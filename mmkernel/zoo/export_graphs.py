"""The network as a graph that runs without mmkernel: TorchScript, torch.export, ONNX.

Each takes ``images``, float (B, C, H, W) in 0..1 with any B, and gives ``features`` (B, d): the pixel statistics are inside.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from mmkernel.zoo.export_weights import ExportError
from mmkernel.zoo.portable import Portable

INPUT, OUTPUT, ABOUT = 'images', 'features', 'mmkernel.json'
ONNX_NEEDS = ('onnx', 'onnxruntime', 'onnxscript')


class Graph(nn.Module):
    """backbone((images - mean) / std), images in 0..1."""

    def __init__(self, encoder: Portable) -> None:
        super().__init__()
        self.backbone = encoder.backbone.eval()
        self.register_buffer('mean', torch.tensor(encoder.preprocessing.mean).view(-1, 1, 1))
        self.register_buffer('std', torch.tensor(encoder.preprocessing.std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone((images - self.mean) / self.std)


def _example(encoder: Portable) -> Tensor:
    return encoder.images(2).float() / 255


def to_torchscript(encoder: Portable, path: Path) -> Callable[[Tensor], Tensor]:
    """``torch.jit.load(path)``; the description is the extra file 'mmkernel.json'."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('ignore')  # traces of shapes, and that TorchScript has successors
        traced = torch.jit.trace(Graph(encoder).eval(), _example(encoder), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={ABOUT: json.dumps(encoder.metadata())})
        return torch.jit.load(str(path))


def to_torch_export(encoder: Portable, path: Path) -> Callable[[Tensor], Tensor]:
    """``torch.export.load(path).module()``."""
    program = _program(encoder)
    torch.export.save(program, str(path), extra_files={ABOUT: json.dumps(encoder.metadata())})
    return torch.export.load(str(path)).module()


def _program(encoder: Portable) -> torch.export.ExportedProgram:
    batch = {0: torch.export.Dim('batch')}
    with torch.no_grad():
        return torch.export.export(Graph(encoder).eval(), (_example(encoder),), dynamic_shapes={INPUT: batch})


def to_onnx(encoder: Portable, path: Path) -> Callable[[Tensor], Tensor]:
    """A graph for onnxruntime and others; the description stands in its metadata."""
    absent = [name for name in ONNX_NEEDS if find_spec(name) is None]
    if absent:
        raise ExportError(f'ONNX needs {", ".join(absent)}: pip install {" ".join(ONNX_NEEDS)} (or mmkernel[onnx]).')
    import onnx
    import onnxruntime

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        program = torch.onnx.export(
            _program(encoder),
            (_example(encoder),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    onnx.helper.set_model_props(model, encoder.metadata())
    onnx.save(model, str(path))
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
