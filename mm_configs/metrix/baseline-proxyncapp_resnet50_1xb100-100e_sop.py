_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/sop_bs100.py',
    '../_base_/schedules/metric_100e_sop.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 80.4, R@10 91.7, R@100 96.7 % (Table 4.3)

model = dict(loss=dict(type='ProxyNCAPlusPlus', num_classes=11318))
