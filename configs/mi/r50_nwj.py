"""NWJ bound on the mutual information of two views, ResNet-50, ImageNet-1k (Poole et al., ICML 2019). A recipe of ours.

bash tools/dist_train.sh configs/mi/r50_nwj.py 8
No published result. Not measured by us.
"""

_base_ = 'r50_infonce.py'

model = dict(head=dict(bound='nwj'))
