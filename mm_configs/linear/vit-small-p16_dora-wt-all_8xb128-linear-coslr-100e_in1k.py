# Table 6.5a, DoRA on all ten videos: LP 45.3, k-NN 35.7.
_base_ = [
    './vit-small-p16_8xb128-linear-coslr-100e_in1k.py',
    '../_base_/weights/dora-wt-all.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
