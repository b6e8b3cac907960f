"""What each process has for itself: the states of its generators, and buffers that no two processes share."""

import hashlib
import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_world_size
from torch import Tensor, nn

from mmkernel.hashes import tensor_bytes
from mmkernel.models.sharded import shards_of
from mmkernel.zoo.loading import load_weights
from mmkernel.zoo.tensor_names import weights_of


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
    return dict(python=[version, list(words), gauss], numpy=numpy, **torch_random_state())


def torch_random_state() -> dict:
    """That of torch alone: 5 kB, and on a GPU 16 bytes, seed and offset, which the host keeps. It takes a microsecond."""
    state = dict(torch=torch.get_rng_state())
    return {**state, 'cuda': torch.cuda.get_rng_state()} if torch.cuda.is_available() else state


def set_random_state(state: dict) -> None:
    """Inverse of ``random_state``, and of ``torch_random_state``."""
    if 'python' in state:
        version, words, gauss = state['python']
        random.setstate((version, tuple(words), gauss))
        name, keys, *rest = state['numpy']
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state['torch'])
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'])


def process_states(model: nn.Module) -> dict[str, list]:
    """What a checkpoint keeps of each process: ``random_states``, and ``own_buffers`` if there are any. All must call it."""
    states, own = all_gather_object(random_state()), own_buffers(model)
    return dict(random_states=states, own_buffers=own) if any(own) else dict(random_states=states)


def own_buffers(model: nn.Module) -> list[dict[str, Tensor]]:
    """For each process, the buffers of ``model`` that differ from those of process 0, by name; all must call it.

    Without SyncBN these are running statistics, as each process sees images of its own. The first entry is empty.
    """
    if get_world_size() == 1:
        return [{}]
    parameters = {name for name, _ in (*model.named_parameters(), *shards_of(model))}
    kept = {name: value for name, value in model.state_dict().items() if name not in parameters}
    buffers = {name: value.cpu() for name, value in kept.items() if isinstance(value, Tensor)}
    digests = {name: hashlib.sha256(tensor_bytes(value)).digest() for name, value in buffers.items()}
    first = all_gather_object(digests)[0]
    return all_gather_object({name: value for name, value in buffers.items() if digests[name] != first.get(name)})


def restore_process(runner: Any, model: nn.Module, checkpoint: dict, source: str) -> dict | None:
    """Give this process what it had when the weights of ``checkpoint``, which are loaded, were saved; its random state.

    None, and the buffers of process 0, if there were more or fewer processes: the log says so.
    """
    states, own = checkpoint['random_states'], checkpoint.get('own_buffers')
    if len(states) != runner.world_size:
        if own:
            runner.logger.warning(
                f'{len({name for part in own for name in part})} buffers, such as running statistics without SyncBN, were those of '
                f'each of {len(own)} processes. The {runner.world_size} of this run begin with those of process 0.'
            )
        return None
    if own:
        load_weights(model, {**weights_of(checkpoint), **own[runner.rank]}, source=source)
    set_random_state(states[runner.rank])
    return states[runner.rank]
