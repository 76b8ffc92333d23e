# Table 6.6, DoRA* on ImageNet, 100 epochs: mIoU 35.8, Acc_m 45.1; 60 epochs: 35.4 and 44.9.
_base_ = [
    './vit-small-p16_upernet_4xb1-160k_ade20k-512x512.py',
    '../_base_/weights/dora-star-in1k.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
