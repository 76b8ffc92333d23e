# R-18 of Table 5.8, from ImageNet's weights as in DAML's code; 54 known classes. The weights are
# downloaded when training begins; `model.backbone.init_cfg.checkpoint=FILE` takes them from a file.
_base_ = 'mmpretrain::_base_/models/resnet18.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    head=dict(num_classes=54))
