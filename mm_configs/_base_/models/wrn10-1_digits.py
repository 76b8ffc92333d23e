# 76k parameters; the last map of 16x16 images is 64x4x4
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mixplug.WideResNet', depth=10, widen_factor=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=64,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
