_base_ = [
    '../_base_/models/preact-resnet18_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet_bs64.py',
    '../_base_/decoder_runtime.py',
]

# A is the last map, 512x4x4, and f a fully connected layer (3.4.1)
model = dict(
    neck=dict(
        _delete_=True,
        type='LinearNeck',
        in_channels=512 * 4 * 4,
        out_channels=512,
        norm_cfg=None))

# only L_r on clean images (3.3.3), so there are no mixing modes
mixup = dict(
    type='AlignMixup',
    modes=(),
    features='backbone',
    decoder='ae',
    image_shape=(3, 64, 64))

param_scheduler = dict(type='CosineAnnealingLR', T_max=200, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=200)
auto_scale_lr = dict(base_batch_size=128)
val_dataloader = None
val_evaluator = None
