_base_ = [
    'mmpretrain::_base_/models/resnet50.py',
    '../_base_/datasets/imagenet_bs25.py',
    '../_base_/schedules/imagenet_300e_sgd-two-rates.py',
    '../_base_/default_runtime.py',
]

# the thesis' number, not ours: top-1 error 18.83 %, so accuracy 81.17 % (Table 3.2)

mixup = dict(type='AlignMixup', decoder='ae', image_shape=(3, 224, 224))

# not in the thesis: L_r is a sum over pixels, and with this learning rate training
# diverges without gradient clipping
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
