_base_ = '../_base_/wrn16-8_1xb128-2000e_cifar100.py'

# the thesis' number, not ours: top-1 accuracy 81.44 ± 0.03 % (Table 5.2)

mixup = dict(type='MultiMix')
