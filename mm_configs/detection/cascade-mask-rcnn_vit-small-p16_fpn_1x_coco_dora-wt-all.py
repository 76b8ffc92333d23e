# Table 6.3b and c, DoRA on all ten videos: box 40.7, mask 36.3.
_base_ = [
    './cascade-mask-rcnn_vit-small-p16_fpn_1x_coco.py',
    '../_base_/weights/dora-wt-all.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
