"""KoLeo (Sablayrolles et al., ICLR 2019) beside BYOL, digits. A recipe of ours, under a minute on two cores.

python tools/train.py configs/koleo/digits.py
No published result. Run here: see model_zoo.md.
"""

_base_ = '../byol/digits.py'

model = dict(
    head=dict(
        _delete_=True,
        type='SumHead',
        heads=dict(
            prediction=dict(type='CosinePredictionHead', weight=2.0),
            entropy=dict(type='EntropyHead', alignment_weight=0.0, density_weight=0.2),
        ),
    )
)
