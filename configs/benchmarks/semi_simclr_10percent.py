"""10 % of the labels as SimCLR fine-tunes (Chen et al., ICML 2020): Nesterov, 0.05 x 4096 / 256 for all weights, 30 epochs.

No warm-up, no decay, crops and flips only, logits from zero; the schedule is that of the released code.

torchrun --nproc_per_node 8 -m mmkernel classify configs/simclr/r50.py CHECKPOINT \
    --protocol configs/benchmarks/semi_simclr_10percent.py
Published: 65.6 % top-1, 87.8 % top-5 (1000 epochs of pretraining). Not measured by us.
"""

_base_ = 'semi_simclr_1percent.py'

train_dataloader = dict(dataset=dict(source=dict(names='data/imagenet/10percent.txt')))
train_cfg = dict(max_epochs=30)
