# Table 6.4b, DoRA on all ten videos: mAO 45.9, SR_0.5 53.4, SR_0.75 23.7.
_base_ = [
    './seqtrack-lite_vit-small-p16_8xb8-500e_got10k.py',
    '../_base_/weights/dora-wt-all.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
