# A tiny Cascade Mask R-CNN for the digits 0 to 2 in street scenes; takes some minutes on two cores.
# `mixplug demo transfer` writes the data set, or toy_scenes.write_scenes('data/digit-scenes',
# digits=3) of mixplug.data.
_base_ = [
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
]
custom_imports = dict(imports=['mixplug.mm'])

classes = ('0', '1', '2')
strides = [2, 4, 8, 16]
model = dict(
    data_preprocessor=dict(pad_size_divisor=16),
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
    neck=[
        dict(type='mixplug.ViTPyramid', embed_dim=96, norm_cfg=dict(type='BN')),
        dict(type='FPN', in_channels=[96] * 4, out_channels=32, num_outs=5),
    ],
    rpn_head=dict(
        in_channels=32,
        feat_channels=32,
        anchor_generator=dict(scales=[6], strides=[*strides, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32, featmap_strides=strides),
        mask_roi_extractor=dict(
            out_channels=32,
            featmap_strides=strides,
            roi_layer=dict(output_size=7)),
        bbox_head=[
            dict(
                type='Shared2FCBBoxHead',
                in_channels=32,
                fc_out_channels=64,
                roi_feat_size=7,
                num_classes=3,
                bbox_coder=dict(
                    type='DeltaXYWHBBoxCoder',
                    target_means=[0.0] * 4,
                    target_stds=[std, std, 2 * std, 2 * std]),
                reg_class_agnostic=True,
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))
            for std in (0.1, 0.05, 0.033)
        ],
        mask_head=dict(
            num_convs=1, in_channels=32, conv_out_channels=32, num_classes=3)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=300, max_per_img=200),
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner',
                    pos_iou_thr=iou,
                    neg_iou_thr=iou,
                    min_pos_iou=iou,
                    match_low_quality=False,
                    ignore_iof_thr=-1),
                sampler=dict(
                    type='RandomSampler',
                    num=32,
                    pos_fraction=0.25,
                    neg_pos_ub=-1,
                    add_gt_as_proposals=True),
                mask_size=14,
                pos_weight=-1,
                debug=False) for iou in (0.5, 0.6, 0.7)
        ]),
    test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=100), rcnn=dict(max_per_img=20)))

data_root = 'data/digit-scenes/'
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='PackDetInputs'),  # no flips: a flipped digit is not a digit
]
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=8),
        pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        metainfo=dict(classes=classes),
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=6, val_interval=6)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mixplug.LayerDecay',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(layer_decay_rate=0.9, norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        T_max=6,
        by_epoch=True,
        begin=0,
        end=6,
        convert_to_iter_based=True),
]
default_hooks = dict(logger=dict(interval=10))
auto_scale_lr = dict(base_batch_size=8)
