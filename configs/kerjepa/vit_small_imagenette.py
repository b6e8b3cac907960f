"""KerJEPA's MMD to N(0, I) with an inverse multiquadric kernel, ViT-S/8, q = 16, Imagenette (arXiv 2512.19605).

mmkernel train configs/kerjepa/vit_small_imagenette.py
No published result for it at hand: with this kernel their Stein discrepancy has 91.9 %. Not measured by us.
No code is public: c = q, the weights and the rest of the recipe are those of LeJEPA, of which this kernel is the limit.
"""

_base_ = '../lejepa/vit_small_imagenette_all_slices.py'

model = dict(
    head=dict(
        kernel=dict(_delete_=True, type='InverseMultiquadricKernel', c='q'),
        kernel_weight=0.05,  # 0.02 sqrt(2 pi): the kernel of LeJEPA is sqrt(2 pi) at 0
    )
)
