_base_ = [
    './models/wrn16-8_cifar.py',
    './datasets/cifar100_bs128.py',
    './schedules/cifar_2000e.py',
    './default_runtime.py',
]

model = dict(head=dict(num_classes=100))
