"""Small encoders for the tests of export, import and publishing."""

import torch
from torch import nn

from mmkernel.zoo import Encoder

IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
BACKBONES = dict(
    resnet=dict(type='TIMMBackbone', model_name='resnet18', layers=(1, 1, 1, 1), channels=(4, 8, 8, 16)),
    resnet18=dict(type='TIMMBackbone', model_name='resnet18'),
    small=dict(type='TIMMBackbone', model_name='resnet18', small_images=True, in_channels=1, layers=(1, 1, 1, 1),
               channels=(4, 8, 8, 16)),
    vit=dict(type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=2,
             num_heads=2),
    registers=dict(type='TIMMBackbone', model_name='vit_tiny_patch16_224', img_size=32, patch_size=8, embed_dim=24, depth=2,
                   num_heads=2, reg_tokens=2, fixed_positions=True, fixed_patches=True),
)  # fmt: skip


def config(name):
    channels = BACKBONES[name].get('in_channels', 3)
    pixels = {key: value[:channels] for key, value in IMAGENET.items()}
    return dict(
        model=dict(type='JointEmbedding', backbone=dict(BACKBONES[name])),
        data_preprocessor=dict(type='ViewPreprocessor', **pixels),
        evaluation=dict(transform=dict(type='CenterView', resize=36, crop=32, interpolation='bilinear')),
    )


def encoder(name, seed=0):
    torch.manual_seed(seed)
    found = Encoder.from_config(config(name), name='tiny', license='Apache-2.0', epochs=3)
    for part in found.backbone.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after training: a mix-up shows
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.2, 1)
            part.num_batches_tracked.fill_(7)
    return found


def features(net, model, unit=False):
    """Those of the target, on images that no export has seen."""
    images = net.images(5, seed=3)
    given = images.float() / 255 if unit else net.data_preprocessor.normalize(images)
    with torch.no_grad():
        return model(given), net.extract(images)
