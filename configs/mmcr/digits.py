"""MMCR (Yerxa et al., NeurIPS 2023), q = 64, digits. A recipe of ours, a minute on two cores.

python tools/train.py configs/mmcr/digits.py
No published result. Run here: 97.2 % kNN (k = 20, all labels; raw pixels 96.7, untrained 91.7), seed 0, 2-core CPU.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(neck=dict(dims=(256, 256, 64)), head=dict(type='SpectrumHead', objective='centroids', spectrum_weight=0.2))
