# DINO on ImageNet (Tables 6.3, 6.4 and 6.6).
_base_ = [
    '../_base_/models/dino_vit-small-p16.py',
    '../_base_/datasets/imagenet-views_8xb128.py',
    '../_base_/schedules/selfsup_100e_adamw.py',
    '../_base_/selfsup_runtime.py',
]

auto_scale_lr = dict(base_batch_size=1024)
