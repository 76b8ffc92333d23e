# scikit-learn's digits, 16x16: 0 to 4 for training, 5 to 9 for testing; shifts of 2 pixels
data = dict(type='mixplug.RetrievalDataset', name='digits', size=16)
data_preprocessor = dict(
    mean=[77.9, 77.9, 77.9], std=[84.7, 84.7, 84.7], to_rgb=False)
train_pipeline = [
    dict(type='RandomCrop', crop_size=16, padding=2),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(split='train', pipeline=train_pipeline, **data))
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(split='test', pipeline=test_pipeline, **data))
val_evaluator = dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8))
# queries, and the training set, which utilization (4.25) measures
test_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ConcatDataset',
        ignore_keys='classes',
        datasets=[
            dict(split='test', pipeline=test_pipeline, **data),
            dict(split='train', pipeline=test_pipeline, **data),
        ]))
test_evaluator = dict(type='mixplug.RecallAtK', ks=(1, 2, 4, 8), scores='all')
