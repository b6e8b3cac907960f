"""Mask R-CNN R50-FPN on COCO 2017, 1x schedule, all layers fine-tuned with synchronised batch statistics.

The published protocol of MoCo (He et al., CVPR 2020, section 4.2), in mmdetection's terms. Not measured by us; needs mmdetection 3.

mmkernel export CHECKPOINT --to mmdet --out encoder_mmdetection.pth
mim train mmdet configs/benchmarks/detection/mmdet_mask_rcnn_fpn_1x_coco.py --launcher pytorch --gpus 8 \
    --cfg-options model.backbone.init_cfg.checkpoint=encoder_mmdetection.pth
"""

_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

sync = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,  # mmdetection freezes the stem and the first stage of supervised weights
        norm_eval=False,
        norm_cfg=sync,
        style='pytorch',  # stride in the 3x3 convolution, as in timm
        init_cfg=dict(_delete_=True, type='Pretrained', checkpoint='encoder_mmdetection.pth'),
    ),
    neck=dict(norm_cfg=sync),
    roi_head=dict(bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=sync), mask_head=dict(norm_cfg=sync)),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize', scales=[(1333, short) for short in (640, 672, 704, 736, 768, 800)], keep_ratio=True
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
