# Table 6.3b and c: Cascade Mask R-CNN with a ViT-S/16 from random weights: box 28.6, mask 24.3.
# The other configs in this folder start from pretrained weights.
_base_ = 'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mixplug.mm'])

model = dict(
    backbone=dict(
        _delete_=True,
        type='mixplug.TimmViT',
        model_name='vit_small_patch16_224',
        out_indices=(3, 5, 7, 11),
        drop_path_rate=0.1,  # our choice; 6.5.3 gives none
        window=0,  # 14: windowed attention, global in blocks 2, 5, 8 and 11; 0: global
        with_cp=False),
    neck=[
        dict(type='mixplug.ViTPyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
        dict(type='FPN', in_channels=[384] * 4, out_channels=256, num_outs=5),
    ])

# shorter side from 480 to 800, longer side at most 1333 (6.5.3)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in range(480, 801, 32)],
        keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Learning rate 1e-4, divided by 10 after epochs 9 and 11, weight decay 0.05 (6.5.3). The thesis
# tries layer decay rates of 0.65, 0.75, 0.8, 0.9 and 1.0 and does not say which it used. To change
# it: --cfg-options optim_wrapper.paramwise_cfg.layer_decay_rate=0.65
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    constructor='mixplug.LayerDecay',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        layer_decay_rate=0.75,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[9, 11], gamma=0.1),
]
