"""KoLeo (Sablayrolles et al., ICLR 2019) beside an alignment of views, digits. A recipe of ours, a minute on two cores.

python tools/train.py configs/koleo/digits.py
No published result. Run here: 96.7 % kNN (k = 20, all labels; raw pixels 96.7, untrained 91.7), seed 0, 2-core CPU.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(head=dict(type='EntropyHead', alignment_weight=20.0, density_weight=4.0))
