# ResNet-18 with ImageNet weights, as in DAML's code; 54 known classes (Table 5.8). The weights are
# downloaded when training starts; `model.backbone.init_cfg.checkpoint=FILE` reads them from a file.
_base_ = 'mmpretrain::_base_/models/resnet18.py'

model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18')),
    head=dict(num_classes=54))
