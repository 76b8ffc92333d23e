# UPerNet on four maps of a ViT-S/16, in iBOT's form for BEiT (6.5.3)
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        size=(512, 512),
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255),
    backbone=dict(
        type='mixplug.TimmViT',
        model_name='vit_small_patch16_224',
        out_indices=(3, 5, 7, 11),
        drop_path_rate=0.1),  # our choice; 6.5.3 gives none
    neck=dict(type='mixplug.ViTPyramid', embed_dim=384, norm_cfg=norm_cfg),
    decode_head=dict(
        type='UPerHead',
        in_channels=[384] * 4,
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=384,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=384,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
    train_cfg=dict(),
    # the sides of whole images are not multiples of the patch size
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
