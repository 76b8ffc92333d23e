# Table 6.3a: UPerNet from a ViT-S/16, from nothing: mIoU 25.1, Acc_m 33.3.
# The other configs here say which weights instead.
_base_ = [
    'mmseg::_base_/models/upernet_beit.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
custom_imports = dict(imports=['mixplug.mm'])

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='mixplug.TimmViT',
        model_name='vit_small_patch16_224',
        out_indices=(3, 5, 7, 11),
        drop_path_rate=0.1),
    neck=dict(
        _delete_=True, type='mixplug.ViTPyramid', embed_dim=384, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[384] * 4, channels=384),
    auxiliary_head=dict(in_channels=384),
    # whole images are no multiple of the patch
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))

# 6.5.3: 6e-5 and 1e-2, 1500 iterations of warm-up, 160k in all with a batch of 4, which is one on
# each of 4 GPUs here; layer decay it has for detection only, so there is none
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(pos_embed=dict(decay_mult=0.0), cls_token=dict(decay_mult=0.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, begin=1500, end=160000, eta_min=0.0, by_epoch=False),
]
train_dataloader = dict(batch_size=1)
