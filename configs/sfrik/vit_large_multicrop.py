"""SFRIK, ViT-L/16 with four registers, L = 3, q = 8192, crops 2 x 224 + 6 x 96, ImageNet-1k: the encoder on all ranks.

bash tools/dist_train.sh configs/sfrik/vit_large_multicrop.py 16
No published result: the recipe of vit_small_multicrop.py for 303 M parameters of encoder. Not measured by us.
A rank holds 1/W of the encoder, of its gradient and of Adam's two averages; a block keeps its input alone.
"""

_base_ = 'vit_small_multicrop.py'

model = dict(backbone=dict(model_name='vit_large_patch16_224', drop_path_rate=0.3))
train_dataloader = dict(batch_size=64)
fsdp = activation_checkpointing = True
