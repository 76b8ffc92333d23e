# Table 6.3a: UPerNet with a ViT-S/16 from random weights: mIoU 25.1, Acc_m 33.3. A batch of 4
# (6.5.3) is one image on each of 4 GPUs. The other configs in this folder start from pretrained
# weights. All parts are written here, because mmengine finds no base 'mmseg::' for the maintained
# fork of mmseg.
_base_ = [
    '../_base_/models/upernet_vit-small-p16.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/segmentation_160k_adamw.py',
    '../_base_/segmentation_runtime.py',
]
