"""A whole training step, part by part: what share of it is the objective, and how many images a second come out.

python benchmarks/step.py --json benchmarks/results/step.json    # CPU: ResNet-18 on 32 x 32; GPU: ResNet-50, bf16, channels_last
python benchmarks/step.py --whole --switches contiguous,compile,checkpointing,tf32 --json FILE
python benchmarks/step.py --fake-world 8 --precision float16 --json FILE    # rank 0 of 8, the talk's table of memory
python benchmarks/step.py --fake-world 8 --quick    # does it run, on any machine

--whole, and --fake-world: ``whole_step.py``. --precision float32|bfloat16|float16. --switches: further forms of ours, each a
switch or several joined by +. --only "*N=256*ours*" picks by "OBJECTIVE N=.. q=.. FORM". Lines are written to FILE as they come.

Two views of B images; 'textbook' puts the objective and the optimizer of ``reference.py`` in the same step. Seconds are
medians over the rounds; the peak is that of the step (on a CPU only with a process for each: left out).
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
import whole_step
from harness import arguments, report, seconds_of
from losses import OBJECTIVES
from reference import LARSLoop
from tables import bytes_text, seconds_text
from torch import Tensor

from mmkernel.engine import LARS
from mmkernel.models import Embeddings, JointEmbedding

PARTS = ('encoder', 'objective', 'encoder backward', 'optimizer')
COLUMNS = ['step', 'form', 'B', 'q', *PARTS, 'objective share', 'images/s', 'peak memory']


@dataclass
class Setting:
    """One encoder, batch and width."""

    objective: str
    B: int
    q: int
    size: int  # of the square images
    backbone: dict
    hidden: int
    half: bool  # bfloat16 autocast

    def model(self, device: torch.device) -> JointEmbedding:
        torch.manual_seed(0)
        _, head = OBJECTIVES[self.objective](self.q)
        neck = dict(type='MLPNeck', dims=(self.hidden, self.hidden, self.q))
        model = JointEmbedding(dict(type='TIMMBackbone', **self.backbone), neck, head())
        return model.to(device, memory_format=torch.channels_last).train()


def settings(device: torch.device, quick: bool) -> list[Setting]:
    small = dict(model_name='resnet18', small_images=True)
    if quick:
        return [Setting('SFRIK L=3', 4, 32, 16, small, 16, False)]
    names = ('SFRIK L=3', 'VICReg', 'Barlow Twins')
    if device.type == 'cpu':
        return [Setting(name, 256, 2048, 32, small, 2048, False) for name in names]
    large, widths = dict(model_name='resnet50', zero_init_residual=True), (8192, 32768)
    main = [Setting(name, 256, q, 224, large, 8192, True) for name in names for q in widths]
    memory = [Setting(name, B, 32768, 224, large, 8192, True) for name in ('SFRIK L=3', 'VICReg') for B in (512, 1024)]
    return main + memory  # the second: batches of the memory table in Zheng et al.'s talk


class Step:
    """The four parts of a step, each timed by itself."""

    def __init__(self, setting: Setting, form: str, device: torch.device) -> None:
        self.setting, self.form, self.device = setting, form, device
        self.net = setting.model(device)
        self.optimizer = dict(textbook=LARSLoop, ours=LARS)[form](self.net.parameters(), lr=0.1, weight_decay=1e-6)
        self.textbook, _ = OBJECTIVES[setting.objective](setting.q)
        shape = (2, setting.B, 3, setting.size, setting.size)
        self.views = [view.contiguous(memory_format=torch.channels_last) for view in torch.randn(shape, device=device)]

    def parts(self) -> dict[str, Callable[[], None]]:
        return dict(zip(PARTS, (self.encode, self.objective, self.backward, self.optimize), strict=True))

    def encode(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.setting.half):
            self.embeddings = self.net.embeddings(self.views)
        self.leaf = self.embeddings.online.detach().requires_grad_()

    def objective(self) -> None:
        """Forward and backward at the embeddings."""
        z, e = self.leaf, self.embeddings
        if self.form == 'textbook':
            loss: Tensor = self.textbook(*z.float())
        else:
            leaf = Embeddings(z, z, z, e.pairs, e.sample_index, e.online_views, e.target_views)
            loss = sum(value for key, value in self.net.score(leaf).items() if key.startswith('loss_'))
        loss.backward()

    def backward(self) -> None:
        self.embeddings.online.backward(self.leaf.grad)
        self.embeddings = self.leaf = None

    def optimize(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


def measured(setting: Setting, form: str, device: torch.device, rounds: int) -> dict[str, float]:
    """Median seconds of each part, and the peak of a step on a GPU."""
    step, times = Step(setting, form, device), {part: [] for part in PARTS}
    for k in range(rounds):
        if device.type == 'cuda' and k == 1:
            torch.cuda.reset_peak_memory_stats()
        for name, part in step.parts().items():
            times[name].append(seconds_of(part, device)[0])
    found = {name: statistics.median(seconds[1:] or seconds) for name, seconds in times.items()}
    return {**found, 'peak': torch.cuda.max_memory_allocated()} if device.type == 'cuda' else found


def line(setting: Setting, form: str, found: dict[str, float]) -> list[str]:
    total = sum(found[part] for part in PARTS)
    return [
        setting.objective, form, str(setting.B), str(setting.q), *(seconds_text(found[part]) for part in PARTS),
        f'{100 * found["objective"] / total:.2f} %', f'{setting.B / total:.1f}',
        bytes_text(found['peak']) if 'peak' in found else '',
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> list[list[str]]:
    args = arguments(
        __doc__,
        argv,
        whole=dict(action='store_true', help='the step as training runs it, not part by part'),
        fake_world=dict(type=int, metavar='W', help='the whole step of rank 0 of W processes that answer at once'),
        precision=dict(choices=sorted(whole_step.HALF), help='with --whole; default: bfloat16 on a GPU, else float32'),
        switches=dict(default='', help=f'with --whole: of {", ".join(whole_step.SWITCHES)}, joined by + or ,'),
    )
    torch.set_num_threads(1)
    if args.whole or args.fake_world:
        args.precision = args.precision or ('bfloat16' if args.device.startswith('cuda') else 'float32')
        return whole_step.main(__file__, args)
    device, lines = torch.device(args.device), []
    for setting in settings(device, args.quick):
        for form in ('textbook', 'ours'):
            try:
                lines.append(line(setting, form, measured(setting, form, device, 2 if args.quick else args.rounds)))
            except torch.cuda.OutOfMemoryError:
                lines.append([setting.objective, form, str(setting.B), str(setting.q), 'out of memory', *[''] * 6])
            gc.collect()
            if device.type == 'cuda':
                torch.cuda.empty_cache()
    report(__file__, args, columns=COLUMNS, lines=lines)
    return lines


if __name__ == '__main__':
    main()
