# PreActResNet-18 of Tables 3.1 and 5.2. The last map of 32x32 images is 512x4x4 (3.4.6).
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mixplug.PreActResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)))
