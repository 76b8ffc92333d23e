# ViT-S/16 of Table 5.3. Section 5.4.1 does not say which tokens are classified.
# Here it is the mean of the patch tokens, so the positions of a dense loss are
# the positions that are averaged at test time.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
        out_type='avg_featmap',
        final_norm=False),  # avg_featmap has its own norm
    neck=None,
    head=dict(
        type='VisionTransformerClsHead',
        num_classes=1000,
        in_channels=384,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0)),
    init_cfg=[
        dict(type='TruncNormal', layer='Linear', std=.02),
        dict(type='Constant', layer='LayerNorm', val=1., bias=0.),
    ])
