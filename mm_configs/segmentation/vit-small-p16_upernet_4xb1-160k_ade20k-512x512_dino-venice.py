# Table 6.3a, DINO on one video, Venice: mIoU 32.4, Acc_m 43.7.
_base_ = [
    './vit-small-p16_upernet_4xb1-160k_ade20k-512x512.py',
    '../_base_/weights/dino-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
