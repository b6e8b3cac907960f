"""Linear classifier as SFRIK trains it (Zheng et al., ICLR 2023, evaluate.py): absolute rate 0.4, 100 epochs.

torchrun --nproc_per_node 8 -m mmkernel classify configs/sfrik/r50_L3_q32768.py CHECKPOINT \
    --protocol configs/benchmarks/linear_sfrik.py
Published: 70.3 % top-1 after 200 epochs of pretraining. Not measured by us.
"""

_base_ = '../_base_/imagenet_classifier.py'

optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=1e-6))
