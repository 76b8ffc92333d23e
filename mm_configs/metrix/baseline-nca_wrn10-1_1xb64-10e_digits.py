_base_ = [
    '../_base_/models/metric_wrn10-1_digits.py',
    '../_base_/datasets/digits_metric.py',
    '../_base_/schedules/metric_digits_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(loss=dict(type='NCA'))
