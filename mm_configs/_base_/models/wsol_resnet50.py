# ResNet-50 with a map of 14x14: the stride of layer 4 is 1 instead of 2, as in CutMix (3.4.2 swaps
# the two: "stride 2 instead of 1"). ImageNet weights are downloaded when training starts;
# `model.backbone.init_cfg.checkpoint=FILE` reads them from a file.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        strides=(1, 2, 2, 1),
        out_indices=(3, ),
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=200,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss'),
        topk=(1, )))
