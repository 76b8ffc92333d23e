# Reliability card: run `mixplug eval card` with checkpoints of any method.
_base_ = [
    '../_base_/models/preact-resnet18_cifar.py',
    '../_base_/datasets/cifar100_bs128.py',
    '../_base_/schedules/cifar_2000e.py',
    '../_base_/default_runtime.py',
    '../_base_/card/cifar_ood.py',
]

# Numbers of the thesis, not ours, in %.
#
# Table 3.3: top-1 error   FGSM    PGD
# baseline                87.12  99.97
# input mixup             81.30  99.96
# CutMix                  86.96  98.67
# manifold mixup          80.29  99.66
# AlignMixup              77.29  93.18
# AlignMixup/AE           76.40  93.69
#
# Table 5.4: top-1 error         FGSM          PGD
# baseline                87.2 ± 0.10  99.9 ± 0.01
# input mixup             81.4 ± 0.23  99.9 ± 0.01
# CutMix                  86.9 ± 0.06  98.6 ± 0.01
# manifold mixup          80.2 ± 0.06  99.6 ± 0.01
# AlignMixup              74.1 ± 0.04  90.4 ± 0.01
# MultiMix                73.8 ± 0.04  90.0 ± 0.01
# Dense MultiMix          73.5 ± 0.03  88.6 ± 0.03
#
# Tables 3.6 and 5.6: calibration    ECE    OE
# baseline                         10.25  1.11
# input mixup                      18.50  1.42
# CutMix                            7.60  1.05
# manifold mixup                   18.41  0.79
# AlignMixup                        5.78  0.41
# AlignMixup/AE                     5.06  0.48
# MultiMix                          5.63  0.39
# Dense MultiMix                    5.28  0.27
#
# Table 3.4: LSUN (crop)  Det Acc  AUROC  AUPR in  AUPR out
# baseline                   54.0   47.1     54.5      45.6
# input mixup                57.5   59.3     61.4      55.2
# CutMix                     63.8   63.1     61.9      63.4
# manifold mixup             58.9   60.3     57.8      59.5
# AlignMixup                 76.1   80.7     85.9      75.8
# AlignMixup/AE              76.9   83.5     86.7      79.4
#
# Table 3.4: iSUN  Det Acc  AUROC  AUPR in  AUPR out
# baseline            66.5   72.3     74.5      69.2
# input mixup         59.6   63.0     60.2      63.4
# CutMix              67.0   76.3     81.0      77.7
# manifold mixup      64.7   73.1     80.7      76.0
# AlignMixup          73.4   85.1     84.3      80.2
# AlignMixup/AE       75.6   84.1     85.9      81.7
#
# Table 3.4: TinyImageNet (crop)  Det Acc  AUROC  AUPR in  AUPR out
# baseline                           61.2   64.8     67.8      60.6
# input mixup                        58.7   62.8     63.0      62.1
# CutMix                             70.4   84.3     87.1      80.6
# manifold mixup                     67.4   69.9     69.3      70.5
# AlignMixup                         79.4   85.0     88.4      85.0
# AlignMixup/AE                      79.7   88.0     89.7      85.7
#
# Table 3.5: LSUN (resize)  Det Acc  AUROC  AUPR in  AUPR out
# baseline                     67.6   73.3     76.6      68.9
# input mixup                  61.5   66.5     66.4      65.8
# CutMix                       71.3   77.4     79.1      75.5
# manifold mixup               67.8   78.9     76.3      71.3
# AlignMixup                   76.1   84.3     87.1      85.8
# AlignMixup/AE                77.0   85.8     87.9      83.7
#
# Table 3.5: TinyImageNet (resize)  Det Acc  AUROC  AUPR in  AUPR out
# baseline                             65.1   70.6     73.1      67.1
# input mixup                          59.6   63.8     63.0      63.4
# CutMix                               69.1   79.4     79.8      73.3
# manifold mixup                       62.5   77.8     76.8      72.2
# AlignMixup                           74.7   82.6     86.1      80.9
# AlignMixup/AE                        76.2   84.8     87.2      82.3
#
# Table 3.5: uniform noise  Det Acc  AUROC  AUPR in  AUPR out
# baseline                     58.3   75.3     75.0      69.0
# input mixup                  50.0   67.9     71.8      71.7
# CutMix                       74.8   80.0     84.9      72.4
# manifold mixup               69.8   75.9     83.2      71.9
# AlignMixup                   86.9   89.1     93.6      77.7
# AlignMixup/AE                88.0   90.6     94.0      80.8
#
# Table 3.5: Gaussian noise  Det Acc  AUROC  AUPR in  AUPR out
# baseline                      60.8   64.3     62.9      63.9
# input mixup                   60.2   65.0     63.1      64.1
# CutMix                        75.7   79.0     84.0      70.9
# manifold mixup                70.8   78.8     81.3      71.6
# AlignMixup                    86.7   87.9     91.8      77.4
# AlignMixup/AE                 86.0   87.2     91.9      75.6
#
# Table 5.7: LSUN (crop)  Det Acc  AUROC  AUPR in  AUPR out
# AlignMixup                 74.2   79.9     84.1      75.1
# MultiMix                   79.2   82.6     85.2      77.6
# Dense MultiMix             80.8   84.3     85.9      78.0
#
# Table 5.7: iSUN  Det Acc  AUROC  AUPR in  AUPR out
# AlignMixup          72.8   83.2     84.1      80.3
# MultiMix            75.6   85.1     87.8      83.1
# Dense MultiMix      76.8   85.4     88.0      84.6
#
# Table 5.7: TinyImageNet (crop)  Det Acc  AUROC  AUPR in  AUPR out
# AlignMixup                         77.2   85.0     87.8      85.0
# MultiMix                           78.3   86.6     89.0      88.2
# Dense MultiMix                     81.4   89.0     90.8      88.0
#
# For the other methods, Table 5.7 repeats Table 3.4.

model = dict(head=dict(num_classes=100))
