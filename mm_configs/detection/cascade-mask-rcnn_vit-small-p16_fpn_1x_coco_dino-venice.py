# Table 6.3b and c, DINO on one video, Venice: box 37.1, mask 32.1.
_base_ = [
    './cascade-mask-rcnn_vit-small-p16_fpn_1x_coco.py',
    '../_base_/weights/dino-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
