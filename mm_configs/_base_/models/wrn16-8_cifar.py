# W16-8 of Tables 3.1 and 5.2. The last map is 512x8x8 on 32x32 images, but the
# thesis mixes 4x4 (3.4.1, 5.4.1): mixers of maps say `resolution=4` with it.
_base_ = './preact-resnet18_cifar.py'

model = dict(
    backbone=dict(
        _delete_=True, type='mixplug.WideResNet', depth=16, widen_factor=8))
