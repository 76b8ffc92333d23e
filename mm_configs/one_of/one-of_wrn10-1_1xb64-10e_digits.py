_base_ = [
    '../_base_/models/wrn10-1_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_10e.py',
    '../_base_/default_runtime.py',
]

mixup = dict(type='OneOf', mixers=[dict(type='CutMix'), dict(type='AlignMixup')], probs=[0.4, 0.4])
