# Office-Home in the open-domain setting (5.4.5): as in DAML, the same label sets, no augmentation,
# 24 images of each of three domains per batch (here on average), and 101 iterations per epoch.
dataset_type = 'mixplug.OfficeHome'
data_root = 'data/office_home'
data_preprocessor = dict(
    num_classes=54,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=72,
    num_workers=4,
    sampler=dict(
        type='mixplug.ClassBalancedSampler', key='domain', length=72 * 101),
    dataset=dict(
        type=dataset_type,
        target='Art',
        split='train',
        data_root=data_root,
        pipeline=pipeline))
# held-out images of the three domains; the fourth must not select the best epoch
val_dataloader = dict(
    batch_size=72,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        target='Art',
        split='val',
        data_root=data_root,
        pipeline=pipeline))
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_dataloader = dict(
    batch_size=72,
    num_workers=4,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        target='Art',
        split='test',
        data_root=data_root,
        pipeline=pipeline))
test_evaluator = dict(type='mixplug.OpenSetAccuracy')
