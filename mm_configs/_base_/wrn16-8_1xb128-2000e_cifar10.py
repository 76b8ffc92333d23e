_base_ = [
    './models/wrn16-8_cifar.py',
    './datasets/cifar10_bs128.py',
    './schedules/cifar_2000e.py',
    './default_runtime.py',
]
