_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/cub200_bs100.py',
    '../_base_/schedules/metric_100e.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 67.8, R@2 77.8, R@4 85.6 % (Table 4.3)

model = dict(loss=dict(type='MultiSimilarity'))
