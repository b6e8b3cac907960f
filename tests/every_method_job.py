"""One job of two processes: trains every config that it is given for an epoch, resumes it for another, and evaluates it.

python -m torch.distributed.run --nproc_per_node 2 tests/every_method_job.py FOLDER CONFIG ...
Rank 0 writes FOLDER/<config>.json.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from mmkernel.distributed import gather_rows
from mmkernel.distributed.shards import Shard
from mmkernel.engine import load_checkpoint, load_config, seed_everything, train
from mmkernel.engine.launch import leave_processes
from mmkernel.evaluation import extract_features, untrained_encoder, weighted_knn

OPTIONS = {
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.logger.interval': 5,
    'train_dataloader.num_workers': 0,
    'launcher': 'pytorch',
}


def epochs(config: str, folder: Path, count: int, resume: bool):
    """The runner after ``count`` epochs in all."""
    cfg = load_config(config, OPTIONS)
    cfg.work_dir = str(folder)
    cfg.train_cfg.max_epochs = count
    if isinstance(cfg.get('param_scheduler'), dict):
        cfg.param_scheduler.warmup_epochs = 0
    return train(cfg, resume=resume)


def same_on_every_rank(runner) -> bool:
    """Parameters but for shards, and the buffers that are global by contract; batch norm's are each process's own on CPU."""
    whole = [p for p in runner.model.parameters() if not isinstance(p, Shard)]
    parameters = torch.cat([p.detach().double().flatten() for p in whole])
    rows = gather_rows(parameters[None])
    return bool((rows == rows[0]).all())


def job(config: str, folder: Path) -> dict:
    epochs(config, folder, 1, resume=False)
    runner = epochs(config, folder, 2, resume=True)
    same, done = same_on_every_rank(runner), runner.epoch
    cfg = load_config(config)
    model = untrained_encoder(cfg)
    report = load_checkpoint(model, folder / 'epoch_2.pth')
    part = cfg.evaluation
    train_x, train_y = extract_features(model, part.train, part.transform, part.batch_size, 0)
    test_x, test_y = extract_features(model, part.test, part.transform, part.batch_size, 0)
    top1 = weighted_knn(train_x, train_y, test_x, test_y, k=(20,))[20]['top1']
    return dict(epochs=done, same=same, loaded=str(report), top1=top1)


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    for config in sys.argv[2:]:
        name = f'{Path(config).parent.name}-{Path(config).stem}'
        seed_everything(0)
        result = job(config, folder / name)
        if dist.get_rank() == 0:
            (folder / f'{name}.json').write_text(json.dumps(result))
        dist.barrier()
    leave_processes()


if __name__ == '__main__':
    main()
