# Table 6.6, DoRA* on ImageNet, 100 epochs: box 39.9, mask 35.1; 60 epochs: 39.3 and 34.9.
_base_ = [
    './cascade-mask-rcnn_vit-small-p16_fpn_1x_coco.py',
    '../_base_/weights/dora-star-in1k.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
