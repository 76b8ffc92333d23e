_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../_base_/datasets/imagenet_bs25.py',
    '../_base_/decoder_runtime.py',
]

# A is the last map, 2048x7x7, and f a fully connected layer (3.4.1). The thesis
# does not give its width; here it is that of R-18.
model = dict(
    neck=dict(
        _delete_=True,
        type='LinearNeck',
        in_channels=2048 * 7 * 7,
        out_channels=512,
        norm_cfg=None),
    head=dict(in_channels=512))

# only L_r on clean images (3.3.3), so there are no mixing modes
mixup = dict(
    type='AlignMixup',
    modes=(),
    features='backbone',
    decoder='ae',
    image_shape=(3, 224, 224))

param_scheduler = dict(type='CosineAnnealingLR', T_max=100, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=100)
auto_scale_lr = dict(base_batch_size=100)
val_dataloader = None
val_evaluator = None
