# Table 6.4b, DINO on one video, Venice: mAO 37.4, SR_0.5 41.4, SR_0.75 13.4.
_base_ = [
    './seqtrack-lite_vit-small-p16_8xb8-500e_got10k.py',
    '../_base_/weights/dino-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
