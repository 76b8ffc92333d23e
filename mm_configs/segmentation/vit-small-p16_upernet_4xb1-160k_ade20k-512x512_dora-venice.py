# Table 6.3a, DoRA on one video, Venice: mIoU 35.4, Acc_m 45.5.
_base_ = [
    './vit-small-p16_upernet_4xb1-160k_ade20k-512x512.py',
    '../_base_/weights/dora-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
