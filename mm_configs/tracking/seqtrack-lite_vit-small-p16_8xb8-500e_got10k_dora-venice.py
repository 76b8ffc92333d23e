# Table 6.4b, DoRA on one video, Venice: mAO 41.4, SR_0.5 47.2, SR_0.75 18.2.
_base_ = [
    './seqtrack-lite_vit-small-p16_8xb8-500e_got10k.py',
    '../_base_/weights/dora-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
