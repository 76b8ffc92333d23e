# Table 6.3b and c, DINO on ImageNet: box 39.9, mask 35.1; Table 6.6 gives 37.1 and 32.1.
_base_ = [
    './cascade-mask-rcnn_vit-small-p16_fpn_1x_coco.py',
    '../_base_/weights/dino-in1k.py',
]

model = dict(backbone=dict(init_cfg={{_base_.weights}}))
