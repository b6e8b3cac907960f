"""Prepare a process for a run: process group of a launcher (NCCL on GPUs, gloo elsewhere), arithmetic, random numbers."""

import gc
import os
import random
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

LAUNCHERS = ('none', 'pytorch', 'slurm')


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
    if 0 < gpus <= local_rank:
        raise ValueError(f'Process {local_rank} of this machine has no GPU: there are {gpus}. Start at most {gpus}.')
    if gpus:
        torch.cuda.set_device(local_rank)
    limit = timedelta(seconds=timeout)
    dist.init_process_group(backend if gpus else 'gloo', timeout=limit, **_meeting_place(limit))


def _meeting_place(timeout: timedelta) -> dict[str, Any]:
    """The rendezvous of processes that torchrun has restarted on one machine; {} otherwise: torch's default.

    The store of torchrun outlives the processes. Without a prefix of its own, a restarted process may find the address of one
    that has ended, and wait. On several machines the counts of restarts differ, so there is no common prefix.
    """
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if restart == '0' or os.environ.get('GROUP_WORLD_SIZE') != '1':
        return {}
    store, rank, world_size = next(iter(rendezvous('env://', timeout=timeout)))
    return dict(store=dist.PrefixStore(f'restart_{restart}', store), rank=rank, world_size=world_size)


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
    """
    tf32, deterministic = cfg.get('tf32', 'convolutions'), bool((cfg.get('randomness') or {}).get('deterministic'))
    torch.set_float32_matmul_precision('high' if tf32 and tf32 != 'convolutions' else 'highest')
    if torch.backends.cudnn.allow_tf32 != bool(tf32):  # some versions of torch warn about this name when it is set
        torch.backends.cudnn.allow_tf32 = bool(tf32)
    torch.backends.cudnn.benchmark = bool((cfg.get('env_cfg') or {}).get('cudnn_benchmark', not deterministic))
    torch.backends.cudnn.deterministic = deterministic
    if deterministic:
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS asks for it, and reads it once
    torch.use_deterministic_algorithms(deterministic)  # an earlier run in this process may have set it


def seed_everything(*entropy: int) -> None:
    """Seed python, numpy and torch (all devices) from a tuple of non-negative integers."""
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002  (third-party transforms draw from the global generator)
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


def random_state() -> dict:
    """State of this process's generators as plain values."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    numpy = [name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)]
    state = dict(python=[version, list(words), gauss], numpy=numpy, torch=torch.get_rng_state())
    return {**state, 'cuda': torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def set_random_state(state: dict) -> None:
    """Inverse of ``random_state``."""
    version, words, gauss = state['python']
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])
