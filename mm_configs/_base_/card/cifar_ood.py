# 3.4.4: images of no class of CIFAR. The folders are those of ODIN's release
# (https://github.com/facebookresearch/odin), as its archives unpack below data/: LSUN/test and
# Imagenet/test with images of 36x36, of which the center is taken, and the rest with 32x32.
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
