# WRN-16-8 of Tables 3.1 and 5.2. The last map of 32x32 images is 512x8x8, but the
# thesis mixes maps of 4x4 (3.4.1, 5.4.1), so mixers of maps need `resolution=4`.
_base_ = './preact-resnet18_cifar.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mixplug.WideResNet', depth=16, widen_factor=8))
