# 20 classes of 5 images per batch (Table 4.2)
_base_ = './retrieval_bs100.py'

data = dict(
    type='mixplug.RetrievalDataset', name='sop', data_root='data/sop')
train_dataloader = dict(
    sampler=dict(
        _delete_=True, type='mixplug.MPerClassSampler', batch_size=100, m=5),
    dataset=data)
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
val_evaluator = dict(ks=(1, 10, 100))
# without NMI: its 11,316 clusters would take longer than everything else
test_evaluator = dict(
    ks=(1, 10, 100), 
    scores=('recall', 'precision_at_1', 'r_precision', 'map_at_r', 'alignment', 'uniformity'))
