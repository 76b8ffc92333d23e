_base_ = [
    '../_base_/datasets/cub200-boxes_bs16.py',
    '../_base_/schedules/cub200_600e_sgd-two-rates.py',
    '../_base_/models/wsol_resnet50.py',
    '../_base_/default_runtime.py',
]

# the thesis' numbers, not ours: top-1 localization 49.4 %, MaxBoxAccV2 59.7 % (Table 3.7)
