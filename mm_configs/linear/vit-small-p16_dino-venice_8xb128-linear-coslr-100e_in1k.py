# Table 6.5a, DINO on one video, Venice: LP 33.8, k-NN 29.9.
_base_ = [
    './vit-small-p16_8xb128-linear-coslr-100e_in1k.py',
    '../_base_/weights/dino-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
