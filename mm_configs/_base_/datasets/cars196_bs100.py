_base_ = './retrieval_bs100.py'

data = dict(
    type='mixplug.RetrievalDataset', name='cars196', data_root='data/cars196')
train_dataloader = dict(dataset=data)
val_dataloader = dict(dataset=data)
# queries, and the training set, which utilization (4.25) measures
test_dataloader = dict(
    dataset=dict(
        type='ConcatDataset',
        ignore_keys='classes',
        datasets=[
            dict(split='test', pipeline={{_base_.test_pipeline}}, **data),
            dict(split='train', pipeline={{_base_.test_pipeline}}, **data),
        ]))
