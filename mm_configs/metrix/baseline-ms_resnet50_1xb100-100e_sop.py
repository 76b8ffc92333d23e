_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/sop_bs100.py',
    '../_base_/schedules/metric_100e_sop.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 76.9, R@10 89.8, R@100 95.9 % (Table 4.3)

model = dict(loss=dict(type='MultiSimilarity'))
