_base_ = [
    '../_base_/models/wrn10-1_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/decoder_runtime.py',
]

# A is the last map, 64x4x4, and f a fully connected layer (3.4.1)
model = dict(
    neck=dict(
        _delete_=True,
        type='LinearNeck',
        in_channels=64 * 4 * 4,
        out_channels=64,
        norm_cfg=None))

# only L_r on clean images (3.3.3), so there are no mixing modes
mixup = dict(
    type='AlignMixup',
    modes=(),
    features='backbone',
    decoder='ae',
    image_shape=(3, 16, 16),
    decoder_width=32)

# a quick run of about a minute on two cores
param_scheduler = dict(type='CosineAnnealingLR', T_max=20, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=20)
auto_scale_lr = dict(base_batch_size=64)
val_dataloader = None
val_evaluator = None
