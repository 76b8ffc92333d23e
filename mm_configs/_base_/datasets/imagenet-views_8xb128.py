# DoRA without tracking, and DINO, on images (6.5.4): as many frames per batch as with clips.
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageNet',
        data_root='data/imagenet',
        split='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='mixplug.ViewsTransform',
                large=224,
                small=96,
                smalls=6,
                large_scale=(0.4, 1.0),
                small_scale=(0.05, 0.4)),
        ]))
