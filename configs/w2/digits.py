"""Wasserstein distance to uniform beside BYOL (Fang et al., ICLR 2024), digits. A recipe of ours.

python tools/train.py configs/w2/digits.py
No published result. Run here: see model_zoo.md.
"""

_base_ = '../byol/digits.py'

model = dict(
    head=dict(
        _delete_=True,
        type='SumHead',
        heads=dict(
            prediction=dict(type='CosinePredictionHead', weight=2.0),
            spread=dict(type='SpectrumHead', objective='wasserstein', alignment_weight=0.0, spectrum_weight=0.2),
        ),
    )
)
