# Table 6.4b, DINO on one video, Venice: mAO 37.4, SR_0.5 41.4, SR_0.75 13.4.
_base_ = './seqtrack-lite_vit-small-p16_8xb8-500e_got10k.py'

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='mixplug.Pretrained',
            checkpoint='work_dirs/dino_vit-small_venice-100e/epoch_100.pth',
            part='teacher')))
