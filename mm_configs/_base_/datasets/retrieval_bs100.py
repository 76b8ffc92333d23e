# Training images are "randomly flipped and cropped to 224x224"; test images are resized to 256x256
# and cropped at the center; batches of 100 (4.4.1).
dataset_type = 'mixplug.RetrievalDataset'
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=100,
    num_workers=5,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type=dataset_type, split='train', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=100,
    num_workers=5,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type=dataset_type, split='test', pipeline=test_pipeline))
val_evaluator = dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8))
test_dataloader = dict(
    batch_size=100,
    num_workers=5,
    sampler=dict(type='DefaultSampler', shuffle=False))
test_evaluator = dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8), scores='all')
