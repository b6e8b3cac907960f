"""How batches of views are put together, whatever the images and the views."""

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
