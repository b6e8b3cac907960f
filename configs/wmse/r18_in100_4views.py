"""W-MSE 4, ResNet-18, q = 128, ImageNet-100 (Ermolov et al., ICML 2021).

mmkernel train configs/wmse/r18_in100_4views.py
No published result at hand for this recipe. Not measured by us.
The authors jitter colours before the crop; here operations follow it.
"""

_base_ = 'r18_in100_2views.py'

train_dataloader = dict(batch_size=256, dataset=dict(views=dict(first=dict(count=2), second=dict(count=2))))
