"""Pretrain an encoder.

python tools/train.py CONFIG [--work-dir DIR] [--resume [FILE]] [--resume-anyway] [--amp {bf16,fp16}] [--seed N] [--dry-run]
                             [--cfg-options KEY=VALUE ...] [--launcher {none,pytorch,slurm}]
"""

from mmkernel.cli.train import main

if __name__ == '__main__':
    main()
