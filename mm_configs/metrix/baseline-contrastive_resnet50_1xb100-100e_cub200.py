_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/cub200_bs100.py',
    '../_base_/schedules/metric_100e_contrastive.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 64.7, R@2 75.9, R@4 84.6 % (Table 4.3)

model = dict(loss=dict(type='Contrastive'))
