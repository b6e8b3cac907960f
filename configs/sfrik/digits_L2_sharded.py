"""SFRIK, L = 2, q = 256, scikit-learn's digits: as digits_L2, with the projector's last layer on all ranks.

bash tools/dist_train.sh configs/sfrik/digits_L2_sharded.py 2
No published result. Measured by us: by the tests, for its exactness; on one process it is digits_L2.
"""

_base_ = 'digits_L2.py'

model = dict(neck=dict(sharded=True))
