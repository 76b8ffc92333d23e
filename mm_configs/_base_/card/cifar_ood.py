# Out-of-distribution images: they show no class of CIFAR (3.4.4). The folders are those of ODIN's
# release (https://github.com/facebookresearch/odin), unpacked below data/. LSUN/test and
# Imagenet/test have images of 36x36, which are cropped at the center; all others have 32x32.
_base_ = './attacks.py'

card = dict(
    ood=[
        dict(name='LSUN (crop)', root='data/LSUN', fit='crop'),
        dict(name='iSUN', root='data/iSUN', fit='crop'),
        dict(name='TinyImageNet (crop)', root='data/Imagenet', fit='crop'),
        dict(name='LSUN (resize)', root='data/LSUN_resize', fit='resize'),
        dict(
            name='TinyImageNet (resize)',
            root='data/Imagenet_resize',
            fit='resize'),
    ],
    noise=('uniform', 'gaussian'))
