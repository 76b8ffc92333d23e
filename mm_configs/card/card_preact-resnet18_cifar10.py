# Reliability card: run `mixplug eval card` with checkpoints of any method.
_base_ = [
    '../_base_/models/preact-resnet18_cifar.py',
    '../_base_/datasets/cifar10_bs128.py',
    '../_base_/schedules/cifar_2000e.py',
    '../_base_/default_runtime.py',
    '../_base_/card/cifar_ood.py',
]

# Numbers of the thesis, not ours, in %.
#
# Table 3.3: top-1 error   FGSM    PGD
# baseline                89.41  99.99
# input mixup             78.42  99.77
# CutMix                  77.72  99.82
# manifold mixup          77.63  97.22
# AlignMixup              38.33  96.36
# AlignMixup/AE           32.13  97.16
#
# Table 5.4: top-1 error         FGSM          PGD
# baseline                88.8 ± 0.11   99.9 ± 0.0
# input mixup             79.1 ± 0.07  99.7 ± 0.02
# CutMix                  77.3 ± 0.06  99.8 ± 0.03
# manifold mixup          76.9 ± 0.14  97.2 ± 0.01
# AlignMixup              54.8 ± 0.03  95.3 ± 0.04
# MultiMix                54.1 ± 0.09  94.2 ± 0.04
# Dense MultiMix          54.1 ± 0.01  92.9 ± 0.04
