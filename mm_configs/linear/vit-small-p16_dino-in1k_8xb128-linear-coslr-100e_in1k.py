# Table 6.6, DINO on ImageNet: LP 71.4, k-NN 69.0.
_base_ = './vit-small-p16_8xb128-linear-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='mixplug.Pretrained',
            checkpoint='work_dirs/dino_vit-small_in1k-100e/epoch_100.pth',
            part='teacher')))
