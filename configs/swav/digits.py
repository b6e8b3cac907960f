"""SwAV (Caron et al., NeurIPS 2020), 64 prototypes, two views, scikit-learn's digits. A recipe of ours, under a minute.

python tools/train.py configs/swav/digits.py
No published result. Run here: see model_zoo.md.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    neck=dict(dims=(256, 128), last_bias=True),
    head=dict(type='SinkhornCodesHead', num_prototypes=64, temperature=0.1, epsilon=0.05, iterations=3),
    batching='size',
    neck_batching='all',
)
default_hooks = dict(freeze=dict(type='FreezeHook', layers={'head.prototypes': dict(epochs=1)}))
