"""FCN with a dilated R50 (output stride 8) on VOC 2012 with the extra annotations, 20 000 steps of 16 crops of 512 x 512.

The protocol of mmselfsup's segmentation benchmark, in mmsegmentation's terms. Not measured by us; needs mmsegmentation 1.

mmkernel export CHECKPOINT --to mmseg --out encoder_mmsegmentation.pth
mim train mmsegmentation configs/benchmarks/detection/mmseg_fcn_d8_20k_voc12aug.py --launcher pytorch --gpus 4 \
    --cfg-options model.backbone.init_cfg.checkpoint=encoder_mmsegmentation.pth
"""

_base_ = 'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'

model = dict(
    pretrained=None,  # the base names weights of a ResNet with another stem
    backbone=dict(
        type='ResNet',  # the base has ResNetV1c: three 3x3 convolutions in place of the 7x7
        init_cfg=dict(type='Pretrained', checkpoint='encoder_mmsegmentation.pth'),
    ),
)
