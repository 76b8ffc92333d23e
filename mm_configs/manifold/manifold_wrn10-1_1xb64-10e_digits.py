_base_ = [
    '../_base_/models/wrn10-1_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_10e.py',
    '../_base_/default_runtime.py',
]

# the input, the first stage, and the last map
mixup = dict(type='ManifoldMixup', layers=('x', 'backbone.stages.0', 'A'))
