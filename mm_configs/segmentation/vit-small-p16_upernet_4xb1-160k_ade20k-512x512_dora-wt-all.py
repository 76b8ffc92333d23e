# Table 6.3a, DoRA on all ten videos: mIoU 36.9, Acc_m 48.0.
_base_ = [
    './vit-small-p16_upernet_4xb1-160k_ade20k-512x512.py',
    '../_base_/weights/dora-wt-all.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
