"""phi = b_1 P_1 + b_2 P_2 on digits: b_1 ||mean z||^2 + b_2 q/(q-1) ||Z'Z/N - I/q||^2, the kernel analogue of VICReg.

mmkernel train configs/kernels/digits_vicreg_analogue.py
No published result. Measured by us: 98.6 % kNN (k = 20, all labels; raw pixels 96.7, untrained 91.7), the seed 0 of model_zoo.md.
The two moments weigh the same here; SFRIK's L = 2 has 1 : 40.
"""

_base_ = '../_base_/digits_recipe.py'

model = dict(
    head=dict(
        type='KernelMMDHead',
        kernel=dict(type='LegendreKernel', weights=(40.0, 40.0)),
        alignment_weight=20.0,
        reduction='sample',
    )
)
