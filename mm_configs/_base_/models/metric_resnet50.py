# ResNet-50 of chapter 4: a 7x7x2048 map, average plus max pooling, and a layer to d = 512 (4.4.1).
# ImageNet weights are downloaded when training starts, as in mmpretrain's own configs for
# fine-tuning; `model.backbone.init_cfg.checkpoint=FILE` reads them from a file instead.
model = dict(
    type='mixplug.MetricLearner',
    backbone=dict(
        type='ResNet',
        depth=50,
        num_stages=4,
        out_indices=(3, ),
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    embedding=dict(dim=512, pool='avg+max'))
