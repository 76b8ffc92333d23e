_base_ = [
    '../_base_/models/preact-resnet18_cifar.py',
    '../_base_/datasets/cifar10_bs128.py',
    '../_base_/schedules/cifar_2000e.py',
    '../_base_/default_runtime.py',
]

# the thesis' number, not ours: top-1 error 4.03 %, so accuracy 95.97 % (Table 3.1)

mixup = dict(type='InputMixup')
