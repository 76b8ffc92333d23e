# Table 5.5: Faster R-CNN on COCO with a ResNet-50 that was trained on ImageNet with mixup. mAP:
# baseline 33.27, input mixup 34.18, CutMix 35.16, AlignMixup 35.84, MultiMix 35.93, Dense MultiMix
# 36.19. Checkpoint: --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/.../epoch_300.pth
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mixplug.mm'])

model = dict(
    backbone=dict(
        init_cfg=dict(
            _delete_=True,
            type='mixplug.Pretrained',
            checkpoint='work_dirs/dense-multimix_resnet50_32xb128-300e_in1k/epoch_300.pth')))
