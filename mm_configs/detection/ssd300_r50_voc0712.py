# Table 5.5: SSD on VOC07+12 with a ResNet-50 that was trained on ImageNet with mixup. mAP:
# baseline 76.7, input mixup 76.6, CutMix 77.6, AlignMixup 78.4, MultiMix 77.9, Dense MultiMix 79.2.
# Checkpoint: --cfg-options model.backbone.init_cfg.checkpoint=work_dirs/.../epoch_300.pth
# The thesis does not say which maps SSD uses: here those of strides 8 and 16, whose numbers of
# channels are those of VGG.
_base_ = 'mmdet::pascal_voc/ssd300_voc0712.py'
custom_imports = dict(imports=['mixplug.mm'])

model = dict(
    data_preprocessor=dict(std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=50,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        style='pytorch',
        init_cfg=dict(
            type='mixplug.Pretrained',
            checkpoint='work_dirs/dense-multimix_resnet50_32xb128-300e_in1k/epoch_300.pth')))
