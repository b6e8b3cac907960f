"""Linear classifier of SwAV and DeepCluster-v2 (Caron et al., NeurIPS 2020): rate 0.3, 100 epochs.

torchrun --nproc_per_node 8 -m mmkernel classify configs/swav/r50.py CHECKPOINT \
    --protocol configs/benchmarks/linear_swav.py
Published: 75.3 % top-1 after 800 epochs of pretraining. Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

optim_wrapper = dict(optimizer=dict(lr=0.3, weight_decay=1e-6))
