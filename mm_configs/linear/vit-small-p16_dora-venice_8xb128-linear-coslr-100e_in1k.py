# Table 6.5a, DoRA on one video, Venice: LP 45.4, k-NN 33.8.
_base_ = [
    './vit-small-p16_8xb128-linear-coslr-100e_in1k.py',
    '../_base_/weights/dora-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
