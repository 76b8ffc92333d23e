_base_ = [
    '../_base_/models/wrn10-1_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_10e.py',
    '../_base_/default_runtime.py',
]

mixup = dict(
    type='AlignMixup', decoder='ae', image_shape=(3, 16, 16))

# L_r is a sum over pixels, and with this learning rate training diverges without
# gradient clipping
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
