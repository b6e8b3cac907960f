"""SwAV with a queue of 512 rows from epoch 5 on, scikit-learn's digits. A recipe of ours, under a minute on two cores.

mmkernel train configs/swav/digits_queue.py
No published result. Measured by us: see model_zoo.md.
"""

_base_ = 'digits.py'

model = dict(head=dict(num_prototypes=256, queue_length=512))
default_hooks = dict(queue=dict(type='QueueHook', start_epoch=5))
