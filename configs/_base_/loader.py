"""How batches of views are put together, whatever the images and the views.

The last batch of an epoch is left out where it is not full: all processes must have equally many rows, or the loss is not
that of their union.
"""

train_dataloader = dict(
    batch_size=256,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    sampler=dict(type='EpochSampler', shuffle=True),
    collate_fn=dict(type='collate_views'),
    dataset=dict(type='ViewDataset'),
)
