# Neighbors of val images are searched in train. Both are resized to 256 by cubic
# interpolation and cropped at the center, as in DINO.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
images = dict(type='mixplug.ImageFolders', data_root='data/imagenet', pipeline=test_pipeline)
test_dataloader = dict(
    batch_size=256,
    num_workers=5,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        datasets=[dict(split='train', **images), dict(split='val', **images)]))
test_evaluator = dict(type='mixplug.KNNAccuracy', k=20, temperature=0.07)
test_cfg = dict()
