# Table 6.5a, DINO on all ten videos: LP 36.6, k-NN 31.1.
_base_ = [
    './vit-small-p16_8xb128-linear-coslr-100e_in1k.py',
    '../_base_/weights/dino-wt-all.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
