"""Fine-tuning on few labelled digits, rates for backbone and head apart, 60 epochs. A recipe of ours.

mmkernel semi configs/sfrik/digits_L3.py CHECKPOINT \
    --protocol configs/benchmarks/semi_digits.py --per-class 1 4
No published result. Measured by us: see tools/benchmarks/README.md.
"""

_base_ = '../_base_/digits_classifier.py'

model = dict(frozen=False)
train_cfg = dict(max_epochs=60)
optim_wrapper = dict(
    optimizer=dict(lr=0.1), constructor='PartRateConstructor', paramwise_cfg=dict(backbone=dict(lr=0.01))
)
default_hooks = dict(accuracy=dict(interval=10), checkpoint=dict(interval=60))
