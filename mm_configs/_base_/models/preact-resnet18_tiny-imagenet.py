# PreActResNet-18 of Tables 3.1 and 5.2 for 64x64 images: with a stem of stride 2,
# the last map is again 512x4x4 (3.4.1).
_base_ = './preact-resnet18_cifar.py'

model = dict(backbone=dict(stem_stride=2), head=dict(num_classes=200))
