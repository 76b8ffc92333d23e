# A tiny UPerNet for the digits 0 to 2 in street scenes; takes a minute or two on two cores.
# `mixplug demo transfer` writes the data set, or toy_scenes.write_scenes('data/digit-scenes',
# digits=3) of mixplug.data.
_base_ = [
    '../_base_/models/upernet_vit-small-p16.py',
    '../_base_/segmentation_runtime.py',
]

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    # network of `mixplug demo dora`: three blocks, patches of 8 pixels, strides of 2 to 16
    backbone=dict(
        _delete_=True,
        type='mixplug.TimmViT',
        model_name='vit_tiny_patch16_224',
        img_size=64,
        patch_size=8,
        embed_dim=96,
        depth=3,
        num_heads=6,
        out_indices=(0, 1, 2, 2)),
    neck=dict(type='mixplug.ViTPyramid', embed_dim=96, norm_cfg=dict(type='BN')),
    decode_head=dict(
        in_channels=[96] * 4,
        channels=32,
        num_classes=4,
        norm_cfg=dict(type='BN'),
        # most pixels are background; without weights, so few steps learn only background
        loss_decode=dict(class_weight=[0.2, 1.0, 1.0, 1.0])),
    auxiliary_head=dict(
        in_channels=96, channels=32, num_classes=4, norm_cfg=dict(type='BN')),
    test_cfg=dict(_delete_=True, mode='whole'))

data_root = 'data/digit-scenes'
metainfo = dict(
    classes=('background', '0', '1', '2'),
    palette=[[40, 40, 40], [220, 40, 40], [40, 180, 40], [60, 80, 240]])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path='train', seg_map_path='annotations/semantic/train'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(img_path='val', seg_map_path='annotations/semantic/val'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mixplug.LayerDecay',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(type='PolyLR', power=1.0, begin=30, end=300, eta_min=0.0, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=300, val_interval=300)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=300))
