"""State that changes from step to step: buffers that obey a flag on the device, counters on the host, and draws by their count."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def move(buffer: Tensor, value: Tensor, real: Tensor | None = None) -> None:
    """buffer <- value where ``real``, a 0-dim bool tensor, is set (None: it is); else ``buffer`` keeps its bits.

    ``real`` says on the device whether a step of the optimizer counted; the host never reads it. ``where`` instead of a product:
    0 x NaN is NaN.
    """
    buffer.copy_(value if real is None else torch.where(real, value, buffer))


class HostCounters(nn.Module):
    """A module whose ``counters`` are plain integers or booleans: reading one does not wait for the device.

    In the state dict they are 0-dim tensors under their own names, as buffers would be.
    """

    counters: tuple[str, ...] = ()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in self.counters:
            destination[prefix + name] = torch.tensor(getattr(self, name), device='cpu')

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, metadata: dict, strict: bool, missing: list[str],
        unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        for name in self.counters:
            key = prefix + name
            if key in state_dict:
                setattr(self, name, type(getattr(self, name))(state_dict[key].item()))
            elif strict:
                missing.append(key)
        own = {prefix + name for name in self.counters}
        unexpected[:] = [key for key in unexpected if key not in own]


def sent(x: Tensor, device: torch.device) -> Tensor:
    """``x`` of the host on ``device``; a plain copy would wait until a GPU has done all that it was given before."""
    return (x.pin_memory() if device.type == 'cuda' and not x.is_cuda else x).to(device, non_blocking=True)


LARGEST_SEED = 2**32 - 1


def generator_of(*numbers: int, device: torch.device | str = 'cpu') -> torch.Generator:
    """A generator on ``device`` that follows from ``numbers`` alone, such as a seed, a count of steps and a rank.

    Whole numbers of [0, 2^32). They are mixed into one of 32 bits: a CPU's generator ignores the higher ones of its seed.
    """
    (word,) = np.random.SeedSequence([int(number) for number in numbers]).generate_state(1)
    return torch.Generator(device).manual_seed(int(word))
