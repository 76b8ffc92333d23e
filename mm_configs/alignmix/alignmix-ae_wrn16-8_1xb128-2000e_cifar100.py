_base_ = [
    '../_base_/models/wrn16-8_cifar.py',
    '../_base_/datasets/cifar100_bs128.py',
    '../_base_/schedules/cifar_2000e.py',
    '../_base_/default_runtime.py',
]

# the thesis' number, not ours: top-1 error 18.09 %, so accuracy 81.91 % (Table 3.1)

model = dict(head=dict(num_classes=100))

# W16-8's map is 8x8; 4x4 is mixed (3.4.1)
mixup = dict(
    type='AlignMixup',
    decoder='ae',
    image_shape=(3, 32, 32),
    resolution=4)

# not in the thesis: L_r is a sum over pixels, and its gradient diverges at this
# rate unless it is bounded
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
