"""Linear classifier on frozen features of augmented digits, SGD as SFRIK's protocol, 20 epochs. A recipe of ours.

mmkernel classify configs/sfrik/digits_L3.py CHECKPOINT --protocol configs/benchmarks/linear_digits.py
No published result. Measured by us: see tools/benchmarks/README.md.
"""

_base_ = '../_base_/digits_classifier.py'

train_cfg = dict(max_epochs=20)
optim_wrapper = dict(optimizer=dict(lr=0.4, weight_decay=1e-6))
