# Table 6.6, DINO on ImageNet: LP 71.4, k-NN 69.0.
_base_ = [
    './vit-small-p16_8xb128-linear-coslr-100e_in1k.py',
    '../_base_/weights/dino-in1k.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
