# A linear classifier on frozen features (6.5.3): as in DINO, the class tokens of
# the last four blocks of a ViT-S.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mixplug.ClassTokens', model_name='vit_small_patch16_224', blocks=4),
    neck=None,
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1536,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01)))
