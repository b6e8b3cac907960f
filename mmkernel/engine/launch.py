"""Prepare a process for a run: process group of a launcher (NCCL on GPUs, gloo elsewhere), its device, arithmetic."""

import gc
import os
import platform
import re
import warnings
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.rendezvous import rendezvous

from mmkernel.engine.launcher_watch import watch_launcher
from mmkernel.owner import born

LAUNCHERS = ('none', 'pytorch', 'slurm')
WORKSPACE, REPEATS = 'CUBLAS_WORKSPACE_CONFIG', (':4096:8', ':16:8')  # values with which products of cuBLAS repeat
_workspace_is_ours = False  # a run of this process has set the variable


def start_process(cfg: Mapping[str, Any]) -> None:
    """``set_numerics``, before anything starts CUDA, and ``init_processes`` of a config."""
    set_numerics(cfg)
    init_processes(cfg.get('launcher', 'none'), **((cfg.get('env_cfg') or {}).get('dist_cfg') or {}))


def init_processes(launcher: str, timeout: float = 1800, backend: str = 'nccl') -> None:
    """Initialise torch.distributed for ``launcher``; nothing to do for 'none'. ``timeout`` in seconds; ``backend`` of GPUs."""
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher='{launcher}' is unknown; choose from {', '.join(LAUNCHERS)}.")
    if launcher == 'none':
        if int(os.environ.get('WORLD_SIZE', 1)) > 1:
            raise ValueError(
                f'{os.environ["WORLD_SIZE"]} processes were started, but with --launcher none each would train alone and '
                'overwrite the others. Add --launcher pytorch (tools/dist_train.sh does).'
            )
        return
    if dist.is_initialized():
        return
    if launcher == 'slurm':
        os.environ.update(slurm_environment(os.environ))
    needed = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')
    if missing := ', '.join(name for name in needed if name not in os.environ):
        text = f'--launcher {launcher} needs {missing} in the environment: start with tools/dist_train.sh or slurm_train.sh.'
        raise ValueError(text)
    local_rank, gpus = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
    if gpus:  # one that is not among those it sees has its own, behind a mask: srun --gpus-per-task=1
        torch.cuda.set_device(local_rank if local_rank < gpus else 0)
    watch_launcher()
    limit = timedelta(seconds=timeout)
    dist.init_process_group(backend if gpus else 'gloo', timeout=limit, **_meeting_place(limit))
    if gpus:
        _check_own_gpu(local_rank, gpus)


def _check_own_gpu(local_rank: int, gpus: int) -> None:
    """ValueError in the second of two processes of this machine that have the same GPU. The first waits for its launcher."""
    gpu = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
    key, store = f'mmkernel/gpu/{platform.node()}/{gpu}', _get_default_store()
    mine = f'{os.getpid()} {local_rank}'
    pid, other = store.compare_set(key, '', mine).decode().split()
    if int(pid) == os.getpid():
        return
    if born(int(pid)) is None:  # of an earlier attempt of torchrun, whose store outlives it
        store.set(key, mine)
        return
    raise ValueError(
        f'Processes {other} and {local_rank} of this machine would share one GPU: each sees {gpus}. Start at most {gpus} here, or '
        'give each process a GPU of its own (srun --gpus-per-task=1).'
    )


def _meeting_place(timeout: timedelta) -> dict[str, Any]:
    """The rendezvous of processes that torchrun has restarted on one machine; {} otherwise: torch's default.

    The store of torchrun outlives the processes. Without a prefix of its own, a restarted process may find the address of one
    that has ended, and wait. On several machines the counts of restarts differ, so there is no common prefix:
    tools/dist_train.sh has torchrun make a store for each meeting.
    """
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if restart == '0' or os.environ.get('GROUP_WORLD_SIZE') != '1':
        return {}
    store, rank, world_size = next(iter(rendezvous('env://', timeout=timeout)))
    return dict(store=dist.PrefixStore(f'restart_{restart}', store), rank=rank, world_size=world_size)


def lost_process(error: BaseException) -> str | None:
    """One line if ``error`` says that another process has gone, or did not answer in time; None for any other error."""
    if not isinstance(error, (dist.DistNetworkError, dist.DistStoreError)) and 'gloo/transport' not in str(error):
        return None
    said = re.sub(r'^\[[^]]*gloo/transport[^]]*\] ', '', str(error).splitlines()[0]).split('. ')[0].rstrip('.')
    return (
        f'LostProcessError: process {os.environ.get("RANK", "?")} on {platform.node()} ends, because another one has ended or '
        f'does not answer ({said}). What has happened there stands in the words of that one. Start all again with --resume.'
    )


def leave_processes() -> None:
    """End what ``init_processes`` began; every process must call it, after its last collective."""
    if dist.is_initialized():
        gc.collect()  # wrapped models hold the group: one freed at the interpreter's shutdown aborts it (torch 2.15, gloo)
        dist.barrier()
        dist.destroy_process_group()


def slurm_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables that torch.distributed reads, from those of srun; without ``scontrol``."""
    try:
        rank, world = given['SLURM_PROCID'], given['SLURM_NTASKS']
        nodes = given.get('SLURM_STEP_NODELIST') or given['SLURM_NODELIST']
    except KeyError as error:
        raise ValueError(f'--launcher slurm needs {error.args[0]}: start with srun (tools/slurm_train.sh).') from None
    first = re.match(r'([^,\[]*)(?:\[(\w+)[^\]]*\]([^,\[]*))?', nodes.strip())  # 'gpu[03-05,9],x1' -> 'gpu03'
    job = int(re.sub(r'\D', '', given.get('SLURM_JOB_ID', '')) or 0)
    return dict(
        RANK=rank, WORLD_SIZE=world,
        LOCAL_RANK=given.get('SLURM_LOCALID', str(int(rank) % max(torch.cuda.device_count(), 1))),
        MASTER_ADDR=given.get('MASTER_ADDR', ''.join(part or '' for part in first.groups())),
        MASTER_PORT=given.get('MASTER_PORT', str(20000 + job % 20000)),  # jobs sharing a node must differ
    )  # fmt: skip


def set_numerics(cfg: Mapping[str, Any]) -> None:
    """How exactly and how reproducibly this process computes; to be called before the first kernel runs.

    ``tf32`` of float32 inputs: in matrix products and convolutions (True), these alone, as PyTorch does by itself
    ('convolutions'), or neither. ``randomness.deterministic``: kernels that give the same bits twice, or an error where
    there is none; otherwise cuDNN tries several and keeps the fastest (``env_cfg.cudnn_benchmark=False``: it does not).
    An earlier run in this process changes nothing. ValueError for an environment that contradicts the config.
    """
    tf32, deterministic = cfg.get('tf32', 'convolutions'), bool((cfg.get('randomness') or {}).get('deterministic'))
    _set_workspace(deterministic)
    torch.set_float32_matmul_precision('high' if tf32 and tf32 != 'convolutions' else 'highest')
    if torch.backends.cudnn.allow_tf32 != bool(tf32):  # some versions of torch warn about this name when it is set
        torch.backends.cudnn.allow_tf32 = bool(tf32)
    torch.backends.cudnn.benchmark = bool((cfg.get('env_cfg') or {}).get('cudnn_benchmark', not deterministic))
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
    inductor = import_module('torch._inductor.config') if cfg.get('compile') else None
    if hasattr(inductor, 'deterministic'):  # torch >= 2.9; else it times kernels, and keeps the fastest
        inductor.deterministic = deterministic


def _set_workspace(deterministic: bool) -> None:
    """The variable that cuBLAS reads once, when it starts: set, as the user has set it, or as it was before a run of ours."""
    global _workspace_is_ours
    given = os.environ.get(WORKSPACE)
    if not deterministic:
        if _workspace_is_ours:
            del os.environ[WORKSPACE]
        _workspace_is_ours = False
    elif given is None:
        os.environ[WORKSPACE], _workspace_is_ours = REPEATS[0], True
        if torch.cuda.is_initialized():
            text = f'CUDA has started in this process without {WORKSPACE}={REPEATS[0]}: products of matrices may not repeat.'
            warnings.warn(f'{text} Set it in the shell, or build this run first.', stacklevel=3)
    elif given not in REPEATS:
        raise ValueError(
            f'randomness.deterministic=True, but the environment has {WORKSPACE}={given}, with which products of cuBLAS do not '
            f'repeat: unset it, or set it to {" or ".join(REPEATS)}.'
        )
