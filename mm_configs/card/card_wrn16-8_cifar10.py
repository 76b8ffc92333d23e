# Reliability card: run `mixplug eval card` with checkpoints of any method.
_base_ = [
    '../_base_/models/wrn16-8_cifar.py',
    '../_base_/datasets/cifar10_bs128.py',
    '../_base_/schedules/cifar_2000e.py',
    '../_base_/default_runtime.py',
    '../_base_/card/cifar_ood.py',
]

# Numbers of the thesis, not ours, in %.
#
# Table 3.3: top-1 error   FGSM    PGD
# baseline                88.02  99.94
# input mixup             79.21  99.43
# CutMix                  78.33  98.10
# manifold mixup          76.11  98.49
# AlignMixup              53.41  96.73
# AlignMixup/AE           44.86  95.32
#
# Table 5.4: top-1 error         FGSM          PGD
# baseline                88.3 ± 0.33  99.9 ± 0.01
# input mixup             79.1 ± 0.12  99.4 ± 0.01
# CutMix                  78.3 ± 0.05  98.1 ± 0.02
# manifold mixup          76.0 ± 0.04  98.4 ± 0.03
# AlignMixup              56.0 ± 0.05  96.7 ± 0.03
# MultiMix                55.3 ± 0.04  94.8 ± 0.01
# Dense MultiMix          53.3 ± 0.03  92.6 ± 0.01
