_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/inshop_bs100.py',
    '../_base_/schedules/metric_100e_inshop.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 86.4, R@10 94.7, R@20 96.2 % (Table 4.3)

model = dict(loss=dict(type='Contrastive'))
