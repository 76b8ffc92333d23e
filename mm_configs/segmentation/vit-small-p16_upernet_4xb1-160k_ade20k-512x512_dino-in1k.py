# Table 6.3a, DINO on ImageNet: mIoU 33.9, Acc_m 44.3.
_base_ = [
    './vit-small-p16_upernet_4xb1-160k_ade20k-512x512.py',
    '../_base_/weights/dino-in1k.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
