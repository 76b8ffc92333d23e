_base_ = [
    '../_base_/models/wrn10-1_digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/digits_10e.py',
    '../_base_/default_runtime.py',
]

mixup = dict(
    type='AlignMixup', decoder='ae', image_shape=(3, 16, 16))

# L_r is a sum over pixels, and its gradient diverges at this rate unless it is
# bounded
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
