# A batch of 1024 images (6.5.3). As in DINO, training images are cropped and
# flipped; test images are resized to 256 by cubic interpolation and cropped at
# the center.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_pil_resize.py'

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(batch_size=128, dataset=dict(pipeline=test_pipeline))
