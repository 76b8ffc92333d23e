# VGG-GAP of Zhou 2016: VGG-16 up to conv5-3, a convolution to 1024 channels, a map of 14x14.
# ImageNet weights are downloaded when training starts; `model.backbone.init_cfg.checkpoint=FILE`
# reads them from a file with torchvision's names.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='mixplug.VGGGAP',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://vgg16')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=200,
        in_channels=1024,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1, )))
