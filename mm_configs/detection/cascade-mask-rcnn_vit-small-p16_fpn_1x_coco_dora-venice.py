# Table 6.3b and c, DoRA on one video, Venice: box 39.5, mask 34.7.
_base_ = [
    './cascade-mask-rcnn_vit-small-p16_fpn_1x_coco.py',
    '../_base_/weights/dora-venice.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
