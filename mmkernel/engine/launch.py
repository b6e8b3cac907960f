"""Join the processes of a launcher: NCCL where GPUs are, gloo elsewhere."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

LAUNCHERS = ('none', 'pytorch', 'slurm')


def init_processes(launcher: str, timeout: float = 1800, backend: str = 'nccl') -> None:
    """Initialise torch.distributed for ``launcher``; nothing to do for 'none'. ``timeout`` in seconds; ``backend`` of GPUs.

    Must run before mmengine's Runner, whose own initialisation asks for a GPU even where there is none.
    """
    if launcher not in LAUNCHERS:
        raise ValueError(f"launcher='{launcher}' is unknown; choose from {', '.join(LAUNCHERS)}.")
    if launcher == 'none':
        if int(os.environ.get('WORLD_SIZE', 1)) > 1:
            raise ValueError(
                f'{os.environ["WORLD_SIZE"]} processes were started but --launcher is none, so each would train alone '
                'and overwrite the others. Add --launcher pytorch (tools/dist_train.sh does).'
            )
        return
    if dist.is_initialized():
        return
    if launcher == 'slurm':
        os.environ.update(slurm_environment(os.environ))
    missing = [name for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR') if name not in os.environ]
    if missing:
        raise ValueError(
            f'--launcher {launcher} needs {", ".join(missing)} in the environment. Start through tools/dist_train.sh '
            'or tools/slurm_train.sh, or drop --launcher to run one process.'
        )
    local_rank, gpus = int(os.environ['LOCAL_RANK']), torch.cuda.device_count()
    if 0 < gpus <= local_rank:
        raise ValueError(f'Process {local_rank} of this machine has no GPU: there are {gpus}. Start at most {gpus}.')
    if gpus:
        torch.cuda.set_device(local_rank)
    limit = timedelta(seconds=timeout)
    dist.init_process_group(backend if gpus else 'gloo', timeout=limit, **_meeting_place(limit))


def _meeting_place(timeout: timedelta) -> dict[str, Any]:
    """Where processes that torchrun has started again on one machine find each other; else torch's own place.

    The store of torchrun outlives them. In torch's own place a process that is early reads there the address of one that
    has ended, and waits for it. On several machines the counts of restarts differ.
    """
    restart = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    if restart == '0' or os.environ.get('GROUP_WORLD_SIZE') != '1':
        return {}
    store, rank, world_size = next(iter(rendezvous('env://', timeout=timeout)))
    return dict(store=dist.PrefixStore(f'restart_{restart}', store), rank=rank, world_size=world_size)


def leave_processes() -> None:
    """End what ``init_processes`` began; every process must call it, after its last collective.

    Models wrapped for several processes hold the group: they must be gone first, because a group that is freed while the
    interpreter shuts down aborts the process (torch 2.15, gloo).
    """
    if dist.is_initialized():
        gc.collect()
        dist.barrier()
        dist.destroy_process_group()


def slurm_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What torch.distributed wants, from what srun sets; ``scontrol`` is not needed."""
    try:
        rank, world = environment['SLURM_PROCID'], environment['SLURM_NTASKS']
        nodes = environment.get('SLURM_STEP_NODELIST') or environment['SLURM_NODELIST']
    except KeyError as error:
        raise ValueError(f'--launcher slurm needs {error.args[0]}: start with srun (tools/slurm_train.sh).') from None
    gpus = max(torch.cuda.device_count(), 1)
    job = int(re.sub(r'\D', '', environment.get('SLURM_JOB_ID', '')) or 0)
    return dict(
        RANK=rank,
        WORLD_SIZE=world,
        LOCAL_RANK=environment.get('SLURM_LOCALID', str(int(rank) % gpus)),
        MASTER_ADDR=environment.get('MASTER_ADDR', first_host(nodes)),
        MASTER_PORT=environment.get('MASTER_PORT', str(20000 + job % 20000)),  # jobs sharing a node must differ
    )


def first_host(node_list: str) -> str:
    """First name of a SLURM node list: 'gpu[03-05,9],x1' -> 'gpu03'."""
    match = re.match(r'([^,\[]+)(?:\[(\w+)[^\]]*\]([^,\[]*))?', node_list.strip())
    if not match:
        raise ValueError(f"The SLURM node list '{node_list}' is empty; set MASTER_ADDR to the first node's name.")
    return ''.join(part or '' for part in match.groups())
