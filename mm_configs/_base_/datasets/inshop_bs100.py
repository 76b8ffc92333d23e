# 20 classes of 5 images per batch (Table 4.2); queries search in a gallery
_base_ = './retrieval_bs100.py'

data = dict(
    type='mixplug.RetrievalDataset', name='inshop', data_root='data/inshop')
query = dict(split='query', pipeline={{_base_.test_pipeline}}, **data)
gallery = dict(split='gallery', pipeline={{_base_.test_pipeline}}, **data)
known = dict(split='train', pipeline={{_base_.test_pipeline}}, **data)

train_dataloader = dict(
    sampler=dict(
        _delete_=True, type='mixplug.MPerClassSampler', batch_size=100, m=5),
    dataset=data)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        ignore_keys='classes',
        datasets=[query, gallery]))
val_evaluator = dict(ks=(1, 10, 20))
# also the training set, which utilization (4.25) measures
test_dataloader = dict(
    dataset=dict(
        type='ConcatDataset',
        ignore_keys='classes',
        datasets=[query, gallery, known]))
test_evaluator = dict(
    ks=(1, 10, 20), 
    scores=('recall', 'precision_at_1', 'r_precision', 'map_at_r', 'alignment', 'uniformity'))
