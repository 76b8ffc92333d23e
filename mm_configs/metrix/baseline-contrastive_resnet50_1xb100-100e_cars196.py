_base_ = [
    '../_base_/models/metric_resnet50.py',
    '../_base_/datasets/cars196_bs100.py',
    '../_base_/schedules/metric_100e_contrastive.py',
    '../_base_/default_runtime.py',
]

# Results of the thesis, not of this code: R@1 81.6, R@2 88.2, R@4 92.7 % (Table 4.3)

model = dict(loss=dict(type='Contrastive'))
