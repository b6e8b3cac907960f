"""Fine-tuning on few labels of 100 classes of Tiny-ImageNet's pack, rates for backbone and head apart. A recipe of ours.

mmkernel semi configs/sfrik/tiny_imagenet_pack_L3.py CHECKPOINT \
    --protocol configs/benchmarks/semi_tiny_imagenet_pack.py --fraction 0.01 0.1
No published result. Measured by us on a part, see tools/benchmarks/README.md; not measured by us to the end.
"""

_base_ = 'linear_tiny_imagenet_pack.py'

model = dict(frozen=False)
optim_wrapper = dict(
    optimizer=dict(lr=0.1, weight_decay=0.0),
    constructor='PartRateConstructor',
    paramwise_cfg=dict(backbone=dict(lr=0.01)),
)
default_hooks = dict(accuracy=dict(interval=20), checkpoint=dict(interval=20))
