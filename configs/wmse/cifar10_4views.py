"""W-MSE 4, ResNet-18 with a small stem, q = 64, CIFAR-10 (Ermolov et al., ICML 2021).

mmkernel train configs/wmse/cifar10_4views.py
Published: 92.0 % linear top-1 after 1000 epochs. Not measured by us.
The authors jitter colours before the crop; here operations follow it.
"""

_base_ = 'cifar10_2views.py'

train_dataloader = dict(batch_size=256, dataset=dict(views=dict(first=dict(count=2), second=dict(count=2))))
