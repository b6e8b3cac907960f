"""Every digits config trains on two processes, reads nothing back, resumes at an epoch boundary, and evaluates."""

import os
import sys
from pathlib import Path

import pytest
import torch
from host_reads import between_logs, metered
from multiprocess import run_processes

from mmkernel.distributed import gather_rows
from mmkernel.distributed.shards import Shard
from mmkernel.engine import load_checkpoint, load_config, seed_everything, train
from mmkernel.evaluation import extract_features, untrained_encoder, weighted_knn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'benchmarks'))
from small_runs import thin  # noqa: E402

CONFIGS = sorted(f'{path.parent.name}/{path.stem}' for path in ROOT.glob('configs/[!_]*/digits*.py'))
PARTS = 8  # tests, so that workers share them; a process imports what it needs once for several configs
OPTIONS = {
    'default_hooks.checkpoint.interval': 1,
    'train_dataloader.num_workers': 0,
    'train_dataloader.num_batch_per_epoch': 4,
    'launcher': 'pytorch',
}


def epochs(config: str, folder: Path, count: int, resume: bool):
    """The runner after ``count`` epochs in all."""
    cfg = load_config(ROOT / f'configs/{config}.py', OPTIONS)
    cfg.work_dir = str(folder)
    cfg.train_cfg.max_epochs = count
    thin(cfg)
    return train(between_logs(cfg), resume=resume)


def same_on_every_rank(runner) -> bool:
    """Parameters but for shards, and the buffers that are global by contract; batch norm's are each process's own on CPU."""
    whole = [p for p in runner.model.parameters() if not isinstance(p, Shard)]
    parameters = torch.cat([p.detach().double().flatten() for p in whole])
    rows = gather_rows(parameters[None])
    return bool((rows == rows[0]).all())


def evaluated(config: str, folder: Path) -> dict:
    cfg = load_config(ROOT / f'configs/{config}.py')
    thin(cfg)
    model = untrained_encoder(cfg)
    report = load_checkpoint(model, folder / 'epoch_2.pth')
    part = cfg.evaluation
    train_x, train_y = extract_features(model, part.train, part.transform, part.batch_size, 0)
    test_x, test_y = extract_features(model, part.test, part.transform, part.batch_size, 0)
    top1 = weighted_knn(train_x, train_y, test_x, test_y, k=(20,))[20]['top1']
    return dict(loaded=str(report), top1=top1)


def job(config: str, folder: Path, first_rank: bool) -> dict:
    """What one rank finds; the first one evaluates."""
    seed_everything(0)
    first = epochs(config, folder, 1, resume=False)
    last = epochs(config, folder, 2, resume=True)
    found = dict(epochs=last.epoch, same=same_on_every_rank(last), counts=[metered(first), metered(last)], log=[])
    return found | evaluated(config, folder) | dict(log=long_lines(folder)) if first_rank else found


def long_lines(folder: Path) -> list[str]:
    """Lines of the logs beyond 120 columns, and warnings of Python. Commands to copy, which are indented, are never broken."""
    lines = [line for log in folder.glob('*/*.log') for line in log.read_text().splitlines()]
    assert any(' img/s' in line for line in lines)
    return [line for line in lines if (len(line) > 120 and line[:2] != '  ') or 'Warning' in line]


def on_rank(rank, world_size, configs, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size))
    return [job(config, folder / config, rank == 0) for config in configs]


@pytest.mark.slow
@pytest.mark.parametrize('part', range(PARTS))
def test_every_digits_config_on_two_processes(part, tmp_path):
    configs = CONFIGS[part::PARTS]
    both = run_processes(on_rank, 2, configs, tmp_path, timeout=200 * len(configs))
    for config, first, second in zip(configs, *both, strict=True):
        for result in (first, second):
            assert result['epochs'] == 2, config
            assert result['same'], config
            assert result['log'] == [], config
            assert result['counts'] == [({}, {})] * 2, config  # between two logs, of each run
        assert '0 missing' in first['loaded'] or 'match' in first['loaded'], (config, first)
        assert first['top1'] > 30, (config, first)  # chance is 10; two epochs are not to be better than no training
