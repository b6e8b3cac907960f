"""``mmkernel env``: what is installed here, which devices there are, and combinations known to fail, each with its fix."""

import importlib.metadata as metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

import mmkernel
from mmkernel.cli.options import Json
from mmkernel.cli.terminal import console, print_json, say
from mmkernel.home import home

OPTIONAL = (
    'faiss-gpu-cu12',
    'opencv-python-headless',
    'tensorboard',
    'wandb',
    'trackio',
    'onnx',
    'onnxruntime',
    'pyarrow',
)


class Trouble(NamedTuple):
    """What is wrong here and the command or the line that mends it. ``stops``: nothing runs before that."""

    what: str
    fix: str
    stops: bool = False


def env(*, json: Json = False) -> None:
    """Versions, devices, combinations known to fail and their fix. The exit code is 1 where something stops mmkernel."""
    packages, devices = versions(), found_devices()
    found = [*troubles(packages, devices)]
    if json:
        print_json(dict(machine=machine(), packages=packages, devices=devices, troubles=[t._asdict() for t in found]))
    else:
        for title, rows in (('machine', machine()), ('package', packages), ('device', devices)):
            table = Table(title, '', box=SIMPLE_HEAD, pad_edge=False)
            for name, value in rows.items():
                table.add_row(name, escape(str(value or 'not installed')))
            console.print(table)
        for trouble in found:
            say(f'[{"red" if trouble.stops else "yellow"}]{escape(trouble.what)}[/]\n  {escape(trouble.fix)}')
        say('nothing known to fail' if not found else f'{len(found)} to mend')
    if any(trouble.stops for trouble in found):
        sys.exit(1)


def machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    disk = shutil.disk_usage(Path.cwd())
    return dict(
        system=platform.platform(), python=f'{platform.python_version()} ({sys.executable})', cores=str(cores),
        threads=f'OMP_NUM_THREADS={os.environ.get("OMP_NUM_THREADS", "not set")}',
        disk=f'{disk.free / 1e9:.0f} of {disk.total / 1e9:.0f} GB free here', home=str(home()),
    )  # fmt: skip


def required() -> dict[str, str]:
    """{package: what mmkernel asks of its version}, '' for any, of the installed metadata; {} of a bare checkout."""
    try:
        lines = metadata.requires('mmkernel') or []
    except metadata.PackageNotFoundError:
        return {}
    parts = [
        re.match(r'([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*\(?([^;)]*)', line) for line in lines if 'extra ==' not in line
    ]
    return {part[1]: part[2].strip() for part in parts if part}


def versions() -> dict[str, str | None]:
    """{package: its version, or None where it is not installed}."""
    found: dict[str, str | None] = {'mmkernel': f'{mmkernel.__version__} ({Path(mmkernel.__file__).parent})'}
    for name in (*required(), *OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def found_devices() -> dict[str, str]:
    try:
        import torch
    except (ImportError, OSError) as error:
        return dict(torch=f'cannot be imported: {error}')
    found = dict(cpu=f'{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads')
    found['cuda'] = f'built for {torch.version.cuda}' if torch.version.cuda else 'not in this build of torch'
    for i in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(i)
        found[f'cuda:{i}'] = f'{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute {gpu.major}.{gpu.minor}'
    if torch.backends.mps.is_available():
        found['mps'] = 'available'
    return found


def troubles(packages: dict[str, Any], devices: dict[str, str]) -> Iterator[Trouble]:
    """Each thing known to fail that is true of these packages and devices."""
    from packaging.requirements import Requirement  # comes with torch's own packages

    for name, wanted in required().items():
        have = packages.get(name)
        if have is None:
            yield Trouble(f'{name} is missing', f"pip install '{name}{wanted}'", stops=True)
        elif wanted and not Requirement(f'{name}{wanted}').specifier.contains(have, prereleases=True):
            yield Trouble(
                f'{name} {have} is here, mmkernel asks for {wanted}', f"pip install '{name}{wanted}'", stops=True
            )
    if 'torch' in devices:
        yield Trouble(f'torch {devices["torch"]}', 'pip install --force-reinstall torch torchvision', stops=True)
        return
    yield from _imports(packages)
    yield from _devices(devices)


def _imports(packages: dict[str, Any]) -> Iterator[Trouble]:
    fixes = {
        'torchvision': 'its build does not fit torch: pip install --force-reinstall torch torchvision',
        'cv2': 'OpenCV lacks libraries of the system: pip uninstall -y opencv-python && '
               'pip install --force-reinstall --no-deps opencv-python-headless',
        'faiss': 'pip install --force-reinstall faiss-cpu', 'timm': 'pip install --upgrade timm',
        'mmengine': 'pip install mmengine==0.10.7', 'mmcv': 'pip uninstall -y mmcv mmcv-full && pip install mmcv-lite',
    }  # fmt: skip
    for name, fix in fixes.items():
        try:
            __import__(name)
        except (ImportError, OSError, RuntimeError) as error:
            yield Trouble(
                f'{name} cannot be imported: {str(error).splitlines()[0]}', fix, stops=name in ('cv2', 'mmengine')
            )
    both = [name for name in ('opencv-python', 'opencv-python-headless') if packages.get(name)]
    if len(both) == 2:
        yield Trouble(f'{" and ".join(both)} share one folder: whichever came last works, until one is removed',
                      'fine as long as it imports; to mend: pip uninstall -y opencv-python opencv-python-headless && '
                      'pip install opencv-python-headless')  # fmt: skip
    if packages.get('faiss-cpu') and packages.get('faiss-gpu-cu12'):
        yield Trouble('faiss-cpu and faiss-gpu-cu12 share one folder', 'pip uninstall -y faiss-cpu faiss-gpu-cu12 && '
                      'pip install faiss-gpu-cu12')  # fmt: skip


def _devices(devices: dict[str, str]) -> Iterator[Trouble]:
    import torch

    if shutil.which('nvidia-smi') and torch.version.cuda is None:
        yield Trouble('There is an NVIDIA driver, and this torch is built without CUDA', 'pip install --force-reinstall torch '
                      'torchvision (not from an index of CPU builds)')  # fmt: skip
    elif shutil.which('nvidia-smi') and not torch.cuda.is_available():
        hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
        yield Trouble(f'There is an NVIDIA driver, and torch (CUDA {torch.version.cuda}) finds no GPU', 'unset CUDA_VISIBLE_DEVICES'
                      if hidden is not None else 'nvidia-smi shows the CUDA version of the driver: update it, or install a torch '
                      'for that version')  # fmt: skip
    for name, text in devices.items():
        if name.startswith('cuda:') and not has_code_for(text.rpartition(' ')[2], torch.cuda.get_arch_list()):
            yield Trouble(
                f'{name}: this torch has no code for {text}', 'pip install a torch that is built for this GPU'
            )


def has_code_for(capability: str, built: list[str]) -> bool:
    """Whether a GPU of '8.6' runs what torch was built for: code of the same major and no later minor, or any earlier PTX."""
    major, minor = map(int, capability.split('.'))
    kinds = [
        (kind, int(number[:-1]), int(number[-1])) for kind, number in re.findall(r'(sm|compute)_(\d+)', ' '.join(built))
    ]
    return any(
        (kind == 'sm' and of == major and least <= minor) or (kind == 'compute' and (of, least) <= (major, minor))
        for kind, of, least in kinds
    )
