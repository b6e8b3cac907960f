"""Jensen-Shannon bound on the mutual information of two views, ResNet-18, CIFAR-10 (Poole et al., ICML 2019). A recipe of ours.

mmkernel train configs/mi/cifar10_js.py
No published result. Not measured by us.
"""

_base_ = 'cifar10_infonce.py'

model = dict(head=dict(bound='js'))
