# Table 6.4b, DINO on ImageNet: mAO 46.4, SR_0.5 54.3, SR_0.75 24.1.
_base_ = [
    './seqtrack-lite_vit-small-p16_8xb8-500e_got10k.py',
    '../_base_/weights/dino-in1k.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
