# Reliability card: run `mixplug eval card` with checkpoints of any method.
_base_ = [
    '../_base_/models/preact-resnet18_tiny-imagenet.py',
    '../_base_/datasets/tiny-imagenet_bs64.py',
    '../_base_/schedules/tiny-imagenet_1200e.py',
    '../_base_/default_runtime.py',
    '../_base_/card/attacks.py',
]

# Numbers of the thesis, not ours, in %.
#
# Table 3.3: top-1 error   FGSM
# baseline                91.85
# input mixup             88.68
# CutMix                  88.68
# manifold mixup          89.25
# AlignMixup              77.34
# AlignMixup/AE           78.98
#
# Table 5.4: top-1 error         FGSM
# baseline                91.9 ± 0.06
# input mixup             88.7 ± 0.08
# CutMix                  88.6 ± 0.03
# manifold mixup          89.3 ± 0.06
# AlignMixup              78.8 ± 0.03
# MultiMix                77.5 ± 0.01
# Dense MultiMix          75.5 ± 0.04
