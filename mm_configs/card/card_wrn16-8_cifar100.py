# Reliability card: run `mixplug eval card` with checkpoints of any method.
_base_ = [
    '../_base_/models/wrn16-8_cifar.py',
    '../_base_/datasets/cifar100_bs128.py',
    '../_base_/schedules/cifar_2000e.py',
    '../_base_/default_runtime.py',
    '../_base_/card/cifar_ood.py',
]

# Numbers of the thesis, not ours, in %.
#
# Table 3.3: top-1 error   FGSM    PGD
# baseline                72.81  99.99
# input mixup             67.33  99.37
# CutMix                  60.16  97.98
# manifold mixup          56.45  98.43
# AlignMixup              55.05  92.16
# AlignMixup/AE           55.44  92.23
#
# Table 5.4: top-1 error         FGSM          PGD
# baseline                72.6 ± 0.22  99.9 ± 0.01
# input mixup             67.3 ± 0.06  99.9 ± 0.01
# CutMix                  60.2 ± 0.04  97.9 ± 0.01
# manifold mixup          56.3 ± 0.10  98.4 ± 0.03
# AlignMixup              55.0 ± 0.03  92.1 ± 0.03
# MultiMix                54.5 ± 0.01  91.6 ± 0.01
# Dense MultiMix          52.9 ± 0.04  90.8 ± 0.01

model = dict(head=dict(num_classes=100))
