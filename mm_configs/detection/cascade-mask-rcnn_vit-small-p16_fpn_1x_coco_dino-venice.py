# Table 6.3b and c, DINO on one video, Venice: box 37.1, mask 32.1.
_base_ = './cascade-mask-rcnn_vit-small-p16_fpn_1x_coco.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='mixplug.Pretrained',
            checkpoint='work_dirs/dino_vit-small_venice-100e/epoch_100.pth',
            part='teacher')))
