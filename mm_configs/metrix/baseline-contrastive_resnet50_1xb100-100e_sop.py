_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/sop_bs100.py',
    '../_base_/schedules/metric_100e_sop.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 74.9, R@10 87.0, R@100 93.9 % (Table 4.3)

model = dict(loss=dict(type='Contrastive'))
