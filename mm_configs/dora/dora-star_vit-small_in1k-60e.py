# DoRA*: 60 epochs take as long as 100 epochs of DINO (Table 6.6).
_base_ = [
    '../_base_/models/dora_vit-small-p16.py',
    '../_base_/datasets/imagenet-views_8xb128.py',
    '../_base_/schedules/selfsup_60e_adamw.py',
    '../_base_/selfsup_runtime.py',
]

model = dict(tracking=False)
auto_scale_lr = dict(base_batch_size=1024)
