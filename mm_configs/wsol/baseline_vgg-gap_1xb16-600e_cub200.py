_base_ = [
    '../_base_/datasets/cub200-boxes_bs16.py',
    '../_base_/schedules/cub200_600e_sgd-two-rates.py',
    '../_base_/models/wsol_vgg-gap.py',
    '../_base_/default_runtime.py',
]

# the thesis' numbers, not ours: top-1 localization 37.1 %, MaxBoxAccV2 59.0 % (Table 3.7)

# Learning rate 0.001 for the classifier and 0.0001 for the other layers (3.4.2). conv6 is as new as
# the classifier and has the same rate.
optim_wrapper = dict(
    optimizer=dict(lr=0.0001),
    paramwise_cfg=dict(custom_keys={'backbone.conv6': dict(lr_mult=10)}))
